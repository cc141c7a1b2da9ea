"""Fixtures of the security tests: the host of the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import cloud_host, host, s3_store

__all__ = ["cloud_host", "host", "s3_store"]

from __future__ import annotations

import pytest

from snapd.model.secrecy import (
    is_secret_name,
    mask_arguments,
    secret_values,
    without_credentials,
)


@pytest.mark.parametrize(
    "name",
    [
        *("--password", "DB_PASSWORD", "--hf-token", "HF_TOKEN", "wandb.api_key", "awsSecretKey"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "--auth", "authToken", "api-key", "apikey"),
    ],
)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("--max-tokens", "--tokenizer", "num_tokens", "--pad-token", "eos_token", "--key"),
        *("monkey", "--author", "--secretary", "lr", "--keyboard", "image_token"),
    ],
)
def test_what_only_looks_a_little_like_one_is_shown(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("python train.py --lr=0.1", "python train.py --lr=0.1"),
        ("train --password=hunter2 -x", "train --password=*** -x"),
        ("train --password hunter2 -x", "train --password *** -x"),
        ("train --token --verbose", "train --token --verbose"),
        ("train wandb.api_key=abc lr=1", "train wandb.api_key=*** lr=1"),
        ("train --pad-token <pad>", "train --pad-token <pad>"),
        ("env HF_TOKEN=abc python", "env HF_TOKEN=*** python"),
        ("get https://ann:pw@host/x", "get https://ann:***@host/x"),
        ("get https://host/x?X-Amz-Signature=ab&y=1", "get https://host/x?X-Amz-Signature=***&y=1"),
        ("login ghp_0123456789abcdefghijABCD", "login ***"),
        ("use AKIAIOSFODNN7EXAMPLE now", "use *** now"),
        ("x eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "x ***"),
        ("env PGPASSWORD=abc psql", "env PGPASSWORD=*** psql"),
        ("get https://ann:p@ss@host/x@y", "get https://ann:***@host/x@y"),
        ('set {"token":"abc","lr":1}', 'set {"token":"***","lr":1}'),
        ("set db.password:abc image:python:3.11", "set db.password:*** image:python:3.11"),
    ],
)
def test_secrets_in_a_command_line_are_masked(given: str, expected: str) -> None:
    assert " ".join(mask_arguments(given.split(" "))) == expected
    # In a script for a shell, too.
    assert mask_arguments(["sh", "-c", given]) == ("sh", "-c", expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("x-api-key: abc", "x-api-key: ***"),
        ('{"password": "two words", "lr": 1}', '{"password": "***", "lr": 1}'),
        ('{"pad_token": "<pad>"}', '{"pad_token": "<pad>"}'),
        ("export TOKEN='two words' && run", "export TOKEN=*** && run"),
        ("run --token 'two words' --lr 1", "run --token *** --lr 1"),
        ("say secret 'two words'", "say secret 'two words'"),
        ("auth://host token ://x", "auth://host token ://x"),
    ],
)
def test_secrets_within_one_argument_are_masked(given: str, expected: str) -> None:
    assert mask_arguments([given]) == (expected,)


@pytest.mark.parametrize(
    "piece", ["a", "A", "a://", "://:", "x ", "a=", "a:'", 'a="', "eyJ-", "?token=", "-"]
)
def test_a_long_argument_costs_no_more_than_it_is_long(piece: str) -> None:
    """A quadratic search would take minutes of these."""
    long = piece * (1_000_000 // len(piece))
    assert mask_arguments([long])
    assert without_credentials(long)


def test_the_value_of_a_secret_variable_is_masked_wherever_it_stands() -> None:
    environment = {"DB_PASSWORD": "correct horse", "PATH": "/usr/bin:/bin", "X_TOKEN": "short"}
    values = secret_values(environment)
    assert values == ["correct horse"]
    assert mask_arguments(["-p", "correct horse", "a=correct horse"], values) == (
        "-p",
        "***",
        "a=***",
    )


def test_an_empty_line_stays_empty() -> None:
    assert mask_arguments([]) == ()
    assert mask_arguments(["", " ", "a=", "password="]) == ("", " ", "a=", "password=")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://github.com/x/y.git", "https://github.com/x/y.git"),
        ("https://ann:tok@github.com/x/y.git", "https://github.com/x/y.git"),
        ("https://tok@github.com/x/y.git", "https://github.com/x/y.git"),
        ("git@github.com:x/y.git", "git@github.com:x/y.git"),
        ("ssh://git:pw@host:22/x", "ssh://git@host:22/x"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("/srv/git/x@y", "/srv/git/x@y"),
        ("https://host/x?token=abc", "https://host/x?token=***"),
    ],
)
def test_an_address_is_recorded_without_credentials(address: str, expected: str) -> None:
    assert without_credentials(address) == expected

"""Who a store asks as, and where: the chain, its files and variables, and what is missing."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from snapd.model.errors import CredentialsExpired, CredentialsMissing, InvalidConfig
from snapd.model.settings import StoreSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.credentials import Account
from snapd.remote.exchanges import Origin


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the variables and files of whoever runs the tests, and the instance's own role."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def write_config(home: Path, text: str) -> None:
    (home / ".aws").mkdir(exist_ok=True)
    (home / ".aws" / "config").write_text(text, encoding="utf-8")


async def origin_of(uri: str, settings: StoreSettings | None = None) -> Origin:
    return await Account(parse_store_uri(uri), settings or StoreSettings(uri)).origin()


async def test_none_at_all_names_the_chain() -> None:
    with pytest.raises(CredentialsMissing, match=r"s3://b/p: .*environment.*instance role"):
        await origin_of("s3://b/p")


async def test_an_anonymous_store_needs_none() -> None:
    origin = await origin_of("s3://bucket/p", StoreSettings("s3://bucket/p", anonymous=True))
    assert (origin.access_key, origin.secret_key, origin.token) == ("", "", "")
    assert origin.base_url == "https://bucket.s3.us-east-1.amazonaws.com"


async def test_an_unknown_profile_is_named(tmp_path: Path) -> None:
    write_config(tmp_path, "[profile other]\n")
    with pytest.raises(CredentialsMissing, match="nobody"):
        await origin_of("s3://b", StoreSettings("s3://b", profile="nobody"))


async def test_a_profile_gives_keys_region_endpoint_and_trust(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("certificates", encoding="utf-8")
    write_config(
        tmp_path,
        "[profile lab]\naws_access_key_id = lab-id\naws_secret_access_key = lab-secret\n"
        f"aws_session_token = lab-token\nregion = eu-west-3\nca_bundle = {ca_file}\n"
        "services = lab\n[services lab]\ns3 =\n  endpoint_url = https://s3.lab:9000/\n",
    )
    origin = await origin_of("s3://bucket", StoreSettings("s3://bucket", profile="lab"))
    assert (origin.access_key, origin.secret_key, origin.token) == (
        "lab-id",
        "lab-secret",
        "lab-token",
    )
    assert origin.region == "eu-west-3"
    assert origin.base_url == "https://s3.lab:9000/bucket"
    assert origin.ca_file == str(ca_file)


@pytest.mark.usefixtures("keys")
class TestPlace:
    @pytest.mark.parametrize(
        ("uri", "region", "base_url"),
        [
            ("s3://bucket", "eu-west-1", "https://bucket.s3.eu-west-1.amazonaws.com"),
            ("s3://bucket", "cn-north-1", "https://bucket.s3.cn-north-1.amazonaws.com.cn"),
            ("s3://bucket", "xx-new-1", "https://bucket.s3.xx-new-1.amazonaws.com"),
            ("s3://dotted.bucket", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/dotted.bucket"),
            ("s3://Upper_Case", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/Upper_Case"),
            ("gs://bucket", "auto", "https://storage.googleapis.com/bucket"),
        ],
    )
    async def test_address(self, uri: str, region: str, base_url: str) -> None:
        settings = StoreSettings(uri, region="" if region == "auto" else region)
        origin = await origin_of(uri, settings)
        assert (origin.region, origin.base_url) == (region, base_url)
        assert os.access(origin.ca_file, os.R_OK)

    @pytest.mark.parametrize(
        ("addressing", "base_url"),
        [
            ("auto", "http://host:9000/bucket"),
            ("path", "http://host:9000/bucket"),
            ("virtual", "http://bucket.host:9000"),
        ],
    )
    async def test_address_at_an_endpoint(self, addressing: str, base_url: str) -> None:
        settings = StoreSettings(
            "s3://bucket",
            endpoint_url="http://host:9000/",
            addressing=addressing,  # type: ignore[arg-type]  # a parameter is a plain str
        )
        origin = await origin_of("s3://bucket", settings)
        assert origin.base_url == base_url
        assert origin.region == "us-east-1"
        assert origin.ca_file == ""

    async def test_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-1")
        origin = await origin_of("s3://bucket")
        assert (origin.base_url, origin.region) == ("http://general/bucket", "eu-south-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://special")
        monkeypatch.setenv("AWS_REGION", "eu-north-1")
        origin = await origin_of("s3://bucket")
        assert (origin.base_url, origin.region) == ("http://special/bucket", "eu-north-1")
        monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
        origin = await origin_of("s3://bucket")
        assert origin.base_url == "https://bucket.s3.eu-north-1.amazonaws.com"

    async def test_dual_stack_and_fips(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
        monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
        monkeypatch.setenv("AWS_REGION", "us-gov-west-1")
        origin = await origin_of("s3://bucket")
        assert origin.base_url == ("https://bucket.s3-fips.dualstack.us-gov-west-1.amazonaws.com")

    async def test_google_ignores_the_variables_of_aws(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general")
        monkeypatch.setenv("AWS_REGION", "eu-south-1")
        origin = await origin_of("gs://bucket")
        assert (origin.base_url, origin.region) == ("https://storage.googleapis.com/bucket", "auto")

    async def test_a_missing_ca_bundle_is_named(self) -> None:
        settings = StoreSettings("s3://bucket", ca_file="/no/such/bundle.pem")
        with pytest.raises(InvalidConfig, match=r"/no/such/bundle\.pem"):
            await origin_of("s3://bucket", settings)

    async def test_an_endpoint_that_is_no_url_is_named(self) -> None:
        settings = StoreSettings("s3://bucket", endpoint_url="host:9000")
        with pytest.raises(InvalidConfig, match="host:9000"):
            await origin_of("s3://bucket", settings)

    async def test_the_origin_stays_the_same_object_until_something_changes(self) -> None:
        account = Account(parse_store_uri("s3://bucket"), StoreSettings("s3://bucket"))
        first = await account.origin()
        assert await account.origin() is first
        account.move_to("eu-west-1")
        moved = await account.origin()
        assert moved.base_url == "https://bucket.s3.eu-west-1.amazonaws.com"
        assert await account.origin() is moved


# Credentials that change


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """Write a profile whose process hands out numbered keys, valid as `minutes` says."""
    script = tmp_path / "hand_out.py"
    script.write_text(
        "import json, pathlib\n"
        "home = pathlib.Path(__file__).parent\n"
        "count = home / 'count'\n"
        "number = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(number))\n"
        "answer = json.loads((home / 'answer.json').read_text())\n"
        "answer['AccessKeyId'] = f'key-{number}'\n"
        "print(json.dumps(answer))\n",
        encoding="utf-8",
    )
    config = f"[default]\ncredential_process = {sys.executable} {script}\n"
    write_config(tmp_path, config)
    hand_out(tmp_path, minutes=60)
    return tmp_path


def hand_out(home: Path, *, minutes: int) -> None:
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    answer = {
        "Version": 1,
        "SecretAccessKey": "secret",
        "SessionToken": "token",
        "Expiration": until.isoformat(),
    }
    (home / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def account_of_process() -> Account:
    return Account(parse_store_uri("s3://bucket"), StoreSettings("s3://bucket"))


async def test_credentials_are_fetched_once_while_they_are_valid(process: Path) -> None:
    account = account_of_process()
    for _ in range(3):
        origin = await account.origin()
        assert (origin.access_key, origin.token) == ("key-1", "token")
    assert (process / "count").read_text(encoding="utf-8") == "1"


async def test_credentials_are_refreshed_before_they_expire(process: Path) -> None:
    hand_out(process, minutes=5)
    account = account_of_process()
    first = await account.origin()
    second = await account.origin()
    assert int(second.access_key.removeprefix("key-")) > int(first.access_key.removeprefix("key-"))


async def test_credentials_that_the_store_calls_expired_are_replaced_once(process: Path) -> None:
    account = account_of_process()
    used = await account.origin()
    renewed = await account.renewed(used)
    assert (used.access_key, renewed.access_key) == ("key-1", "key-2")
    assert await account.renewed(used) is renewed
    assert (process / "count").read_text(encoding="utf-8") == "2"


async def test_credentials_that_come_expired_say_so(process: Path) -> None:
    hand_out(process, minutes=-5)
    with pytest.raises(CredentialsExpired, match="s3://bucket"):
        await account_of_process().origin()


async def test_a_process_that_fails_is_named(process: Path) -> None:
    (process / "answer.json").unlink()
    with pytest.raises(CredentialsMissing, match=r"s3://bucket.*custom-process"):
        await account_of_process().origin()


class Told:
    """Keeps what it is told of an expiry."""

    def __init__(self) -> None:
        self.expiries: list[float | None] = []
        self.again = anyio.Event()

    def __call__(self, expires_at: float | None) -> None:
        self.expiries.append(expires_at)
        self.again.set()

    async def next(self) -> float | None:
        self.again = anyio.Event()
        with anyio.fail_after(30):
            await self.again.wait()
        return self.expiries[-1]


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapd.remote.credentials.LOOK_SECONDS", 0.01)


def expiry_in(home: Path) -> float:
    answer = json.loads((home / "answer.json").read_text(encoding="utf-8"))
    return datetime.fromisoformat(answer["Expiration"]).timestamp()


@pytest.mark.usefixtures("looks_often")
async def test_somebody_is_told_when_they_expire_and_they_are_refreshed_unasked(
    process: Path,
) -> None:
    hand_out(process, minutes=12)
    told = Told()
    async with account_of_process().kept_fresh(told):
        assert await told.next() == pytest.approx(expiry_in(process), abs=1)
        hand_out(process, minutes=60)
        while await told.next() != pytest.approx(expiry_in(process), abs=1):
            pass
    assert told.expiries[-1] is None


@pytest.mark.usefixtures("looks_often")
async def test_an_expiry_that_comes_near_says_that_refreshing_fails(
    process: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hand_out(process, minutes=5)
    account = account_of_process()
    await account.origin()
    expires_at = expiry_in(process)
    (process / "answer.json").unlink()
    told = Told()
    async with account.kept_fresh(told):
        assert await told.next() == pytest.approx(expires_at, abs=1)
        assert await told.next() == pytest.approx(expires_at, abs=1)
    assert "credentials are not fresh: s3://bucket" in caplog.text


async def test_keys_that_never_expire_have_no_expiry(keys: None) -> None:
    account = Account(parse_store_uri("s3://bucket"), StoreSettings("s3://bucket"))
    assert account.expires_at is None
    await account.origin()
    assert account.expires_at is None


async def test_keys_replaced_in_a_file_are_found_on_renewal(tmp_path: Path) -> None:
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = secret\n"
    write_config(tmp_path, text.format("old"))
    account = Account(parse_store_uri("s3://bucket"), StoreSettings("s3://bucket"))
    used = await account.origin()
    write_config(tmp_path, text.format("new"))
    assert (await account.renewed(used)).access_key == "new"

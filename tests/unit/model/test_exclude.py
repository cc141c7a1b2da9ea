from __future__ import annotations

import pytest

from snapd.model.errors import InvalidPattern
from snapd.model.exclude import Excludes


def excludes(*patterns: str) -> Excludes:
    return Excludes.compile(patterns, home="/home/u+v", cache_dir="/var/cache/snap.sync")


def test_no_pattern_and_empty_patterns_exclude_nothing() -> None:
    for none in (excludes(), excludes("", "")):
        assert not none.matches("/a")
        assert none.patterns == ()
        assert not none.no_follow


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (r"\.log$", ["/r/a.log"], ["/r/a.log.1", "/r/alog", "/r/a.log\n"]),
        (r"txt\z", ["/r/a.txt"], ["/r/a.txt\n"]),
        (r"^/r/out(/|$)", ["/r/out", "/r/out/x"], ["/r/output", "/s/r/out"]),
        (r"(?i)readme$", ["/r/ReadMe"], ["/r/readme.md"]),
        (r"/a(?i)b|c$", ["/r/aB", "/r/C"], ["/r/Ab"]),
        (r"/(?:a(?i)b|c)D$", ["/r/aBD", "/r/CD"], ["/r/cd", "/r/abd"]),
        (r"/(?i:a(?-i:b))$", ["/r/Ab"], ["/r/AB"]),
        (r"/(?-i)a$", ["/r/a"], ["/r/A"]),
        (r"/a(?s).b", ["/r/a\nb"], ["/r/ab"]),
        (r"(?u)/é$", ["/é"], ["/e"]),
        (r"/(?P<n>x)(?<m>y)$", ["/xy"], ["/x"]),
        (r"/[[:upper:]][[:digit:]]$", ["/r/A1"], ["/r/a1", "/r/AB"]),
        (r"/[[:^alpha:]]+$", ["/r/1é", "/r/\U0001f600"], ["/r/a1"]),
        (r"/[^[:alnum:]_]$", ["/r/-"], ["/r/_", "/r/a"]),
        (r"/[]x]$", ["/r/]", "/r/x"], ["/r/["]),
        (r"/[^]x]$", ["/r/["], ["/r/]", "/r/x"]),
        (r"/[-a]$", ["/r/-", "/r/a"], ["/r/b"]),
        (r"/[+-]$", ["/r/-", "/r/+"], ["/r/,"]),
        (r"/[a|~&^]$", ["/r/|", "/r/~", "/r/&", "/r/^"], ["/r/b"]),
        (r"/[\]\d\x{e9}]$", ["/r/]", "/r/7", "/r/é"], ["/r/x"]),
        (r"/\x41\u0042\U00000043\u{44}$", ["/r/ABCD"], ["/r/ABC"]),
        (r"/a{2,3}$", ["/r/aa", "/r/aaa"], ["/r/a", "/r/aaaa"]),
        (r"/a{2}?b", ["/r/aab"], ["/r/ab"]),
        (r"/été$", ["/r/été"], ["/r/e\u0301te\u0301"]),
        (r"\ba b\b", ["/r/a b"], ["/r/xa b"]),
        (r"/\s$", ["/r/ ", "/r/\t", "/r/\u2028"], ["/r/\x1c", "/r/a"]),
        (r"/[^\S]$", ["/r/ "], ["/r/\x1c", "/r/a"]),
        (r"/\S$", ["/r/\x1c", "/r/a"], ["/r/ "]),
        (r"/a\-b\/c\ d\.e", ["/r/a-b/c d.e"], ["/r/a-b/c dxe"]),
    ],
)
def test_a_pattern_means_what_it_means_in_rust(
    pattern: str, matching: list[str], others: list[str]
) -> None:
    compiled = excludes(pattern)
    assert [path for path in matching if not compiled.matches(path)] == []
    assert [path for path in others if compiled.matches(path)] == []


def test_any_of_several_patterns_is_enough_and_flags_stay_in_theirs() -> None:
    compiled = excludes("(?i)a$", "b$")
    assert [path for path in ("/A", "/b", "/B") if compiled.matches(path)] == ["/A", "/b"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "a group is not closed"),
        ("a)", "was not opened"),
        ("[a", "a class is not closed"),
        ("[", "a class is not closed"),
        ("[]", "a class is not closed"),
        ("[--a]x[", "a class is not closed"),
        ("[z-a]", "bad character range"),
        ("a(?=b)", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(?>a)", "look-around"),
        ("(?#c)", "look-around"),
        ("(?P=n)", "look-around"),
        (r"(a)\1", r"\1 is not supported"),
        (r"\Z", r"\Z is not supported"),
        (r"\<a", r"\< is not supported"),
        (r"\p{L}", r"\p is not supported"),
        (r"[\b]", r"\b is not supported"),
        (r"\b{start}", r"\b{ is not supported"),
        ("\\", "\\ is not supported"),
        ("(?x) a", "the flags are i and s"),
        ("(?m)^a", "the flags are i and s"),
        ("(?-u:a)", "the flags are i and s"),
        ("(?)", "the flags are i and s"),
        ("[a[b]]", "a set inside a class"),
        ("[a&&b]", "a set inside a class"),
        ("[[:foo:]]", "[:foo:] is not a class"),
        ("a**", "nothing that * could repeat"),
        ("a*+", "nothing that + could repeat"),
        ("*a", "nothing that * could repeat"),
        ("(?i)+", "nothing that + could repeat"),
        ("a{,2}", "starts no repetition"),
        ("{", "starts no repetition"),
        (r"\x{110000}", "is no character"),
        (r"\u{d800}", "is no character"),
    ],
)
def test_what_cannot_be_meant_the_same_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        excludes("fine", pattern)
    assert reason in caught.value.message
    assert repr(pattern) in caught.value.message


def test_common_names_rubbish_anywhere() -> None:
    common = excludes("%common%")
    assert common.matches("/r/.git")
    assert common.matches("/r/x/node_modules/y")
    assert not common.matches("/r/.gitignore")
    assert not common.no_follow


def test_system_names_places_of_this_machine_and_follows_no_links() -> None:
    system = excludes("%system%", "x$")
    for path in ("/proc/1", "/home/u+v/.cache/x", "/var/cache/snap.sync/blobs"):
        assert system.matches(path)
    for path in ("/data/proc/1", "/home/uuv/.cache/y", "/var/cache/snapXsync/blobs"):
        assert not system.matches(path)
    assert system.no_follow


def test_a_macro_is_expanded_inside_a_pattern() -> None:
    both = excludes("%common%|me$")
    assert both.matches("/r/.cache/a")
    assert both.matches("/r/me")

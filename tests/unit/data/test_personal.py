"""Personal data is found by its form, and what only looks like it is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data import personal

FOUND = {
    "mail address": ["ann.lee+news@example.co.uk", "write to A_b@mail.example.org.", "élodie@example.fr", "bob@münchen.de"],
    "telephone number": [
        "+44 20 7946 0958",
        "+1-202-555-0143",
        "(202) 555-0143",
        "202-555-0143",
        "+49 (0)30 901820 12",
        "0049 30 901820",
        "030/9018200",
        "(0221) / 901820",
    ],
    "card number": ["4111 1111 1111 1111", "4111111111111111", "5500-0055-5555-5559"],
    "key": [
        "sk-" + "a1B2" * 6,
        "sk_live_" + "a1B2" * 6,
        "AKIA" + "ABCD" * 4,
        "ghp_" + "a" * 36,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz",
    ],
    "private key": [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOYBF\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
}
LEFT_ALONE = [
    "in 2026, 1,234,567 people",
    "version 3.12.4, build 20261126",
    "4111 1111 1111 1112",  # Luhn's digit is wrong
    "3.14159265358979323846",
    "on 26/11/2026, or 02/2026",
    "binary 00101100, SKU 0012345678, zip 00501-1234, 0000000000",
    "codes 001 002 003 004, 001.002.003, 0001-01-01, 0000-00-00",
    "invoice 042/2023, Az. 012/2024, 0123/4567",
    "from 10:00 to 12:30 on 2026-11-26",
    "@property and user@",
    "1 2 3 4 5 6 7 8 9",
    "sk-learn and AKIA",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_each_kind_is_found_and_masked(kind: str, text: str) -> None:
    masked, kinds = personal.masked(f"before {text} after")
    assert kinds == [kind]
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert f"[{kind}]" in masked
    assert not any(part in masked for part in text.split() if len(part) > 9 and part.isalnum())


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert personal.masked(text) == (text, [])


def test_a_card_number_is_found_before_other_digits() -> None:
    assert personal.masked("4111 1111 1111 1111 123 12/26") == ("[card number] 123 12/26", ["card number"])


def test_a_private_key_without_its_end_takes_all_that_follows() -> None:
    assert personal.masked("mine: -----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc") == ("mine: [private key]", ["private key"])


@given(st.text())
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once, _ = personal.masked(text)
    assert personal.masked(once)[0] == once


def test_luhn_knows_its_digit() -> None:
    assert personal.luhn("79927398713")
    assert not any(personal.luhn(f"7992739871{digit}") for digit in "012456789")

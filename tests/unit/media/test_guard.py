from __future__ import annotations

import ipaddress

import pytest

from airflow_video_provider.media import BadDestination
from airflow_video_provider.media.guard import AddressGuard, is_public


class TestPublicAddresses:
    @pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
    def test_public_addresses_pass(self, address: str) -> None:
        assert is_public(ipaddress.ip_address(address))

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:a00:1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "2001:0:0:0:0:0:80ff:fffe",
        ],
    )
    def test_addresses_that_are_not_public_do_not_pass(self, address: str) -> None:
        assert not is_public(ipaddress.ip_address(address))


class TestAllowedHosts:
    @pytest.mark.parametrize(
        ("entry", "host", "port", "address", "passes"),
        [
            ("10.0.0.0/8", "x", 80, "10.1.2.3", True),
            ("10.0.0.0/8", "x", 80, "::ffff:10.1.2.3", True),
            ("10.0.0.0/8", "x", 80, "192.168.0.1", False),
            ("minio.internal", "minio.internal", 9000, "10.1.2.3", True),
            ("minio.internal", "MinIO.internal.", 9000, "10.1.2.3", True),
            ("minio.internal", "other.internal", 9000, "10.1.2.3", False),
            (".internal", "a.b.internal", 80, "10.1.2.3", True),
            ("*.internal", "a.internal", 80, "10.1.2.3", True),
            (".internal", "internal.evil.com", 80, "10.1.2.3", False),
            ("127.0.0.1:9000", "127.0.0.1", 9000, "127.0.0.1", True),
            ("127.0.0.1:9000", "127.0.0.1", 22, "127.0.0.1", False),
            ("[::1]:9000", "::1", 9000, "::1", True),
            ("::1", "::1", 1, "::1", True),
            ("localhost:8080", "localhost", 8080, "127.0.0.1", True),
        ],
    )
    def test_an_allowed_host_opens_what_it_names_and_nothing_else(
        self, entry: str, host: str, port: int, address: str, passes: bool
    ) -> None:
        assert AddressGuard([entry]).allows(host, port, ipaddress.ip_address(address)) is passes

    @pytest.mark.parametrize("entry", ["", "10.0.0.0/99", "https://host/"])
    def test_an_allowed_host_that_names_nothing_is_refused(self, entry: str) -> None:
        with pytest.raises(BadDestination, match="allowed_hosts"):
            AddressGuard([entry])

    def test_one_text_in_place_of_a_list_is_refused(self) -> None:
        with pytest.raises(BadDestination, match="allowed_hosts: 'minio' is one text"):
            AddressGuard("minio")

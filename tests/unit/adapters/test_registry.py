import collections
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from mullet.adapters.feeds.price import HttpPriceFeed
from mullet.registry import BrokenPlugin, DuplicateName, Group, Registry, UnknownName


def registry_of(*points: tuple[str, str]) -> Registry:
    def find(group: str) -> EntryPoints:
        return EntryPoints(EntryPoint(name, value, group) for name, value in points if group == "mullet.feeds")

    return Registry(find)


def test_names_are_found_and_loaded() -> None:
    registry = registry_of(("http-price", "mullet.adapters.feeds.price:HttpPriceFeed"), ("deque", "collections:deque"))
    assert registry.names(Group.FEEDS) == ("deque", "http-price")
    assert registry.names(Group.METERS) == ()
    assert registry.load(Group.FEEDS, "http-price") is HttpPriceFeed
    assert registry.options_schema(Group.FEEDS, "http-price") is HttpPriceFeed.options_schema
    assert registry.load(Group.FEEDS, "deque") is collections.deque
    assert registry.options_schema(Group.FEEDS, "deque") == {}


def test_an_unknown_name_lists_near_ones() -> None:
    registry = registry_of(("http-price", "a:b"), ("http-limits", "a:b"), ("vllm", "a:b"))
    with pytest.raises(UnknownName, match="did you mean http-price"):
        registry.load(Group.FEEDS, "htp-price")
    with pytest.raises(KeyError) as caught:
        registry.load(Group.FEEDS, "zzz")
    assert str(caught.value) == "mullet.feeds has no 'zzz'; there are http-limits, http-price, vllm"
    with pytest.raises(UnknownName, match="there are none"):
        registry.load(Group.SWITCHES, "modbus")


def test_one_name_for_two_things_is_refused() -> None:
    with pytest.raises(DuplicateName, match="a:b and c:d"):
        registry_of(("price", "a:b"), ("price", "c:d")).names(Group.FEEDS)
    assert registry_of(("price", "a:b"), ("price", "a:b")).names(Group.FEEDS) == ("price",)


def test_names_are_known_without_importing_and_a_broken_plugin_says_so() -> None:
    registry = registry_of(("gone", "no_such_module_at_all:Thing"), ("empty", "collections:NoSuchThing"))
    assert registry.names(Group.FEEDS) == ("empty", "gone")
    for name in ("gone", "empty"):
        with pytest.raises(BrokenPlugin, match=name):
            registry.load(Group.FEEDS, name)


def test_the_installed_feeds_are_found() -> None:
    registry = Registry()
    assert registry.load(Group.FEEDS, "http-price") is HttpPriceFeed
    for name in registry.names(Group.FEEDS):
        for kind, _, text in registry.options_schema(Group.FEEDS, name).values():
            assert isinstance(kind, type)
            assert text

"""A home to speak about: rooms, floors and devices, as the lists that sentence templates draw from and the judge knows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hassil import SlotList, TextSlotList

from finetune.config.data import Domain


@dataclass(frozen=True, order=True)
class Device:
    """A device by its room, its spoken name, and the domain that Home Assistant files it under."""

    room: str
    name: str
    domain: str


@dataclass(frozen=True)
class Home:
    """Rooms, floors and devices, in the order of the configuration."""

    rooms: tuple[str, ...]
    floors: tuple[str, ...]
    devices: tuple[Device, ...]

    def of(self, domains: frozenset[str] | None) -> list[Device]:
        """The devices of these domains; None: all."""
        return [device for device in self.devices if domains is None or device.domain in domains]


def home(rooms: Mapping[str, Mapping[Domain, list[str]]], floors: Iterable[str] = ()) -> Home:
    """Return the home of a setting like data.areas: room → domain → names."""
    devices = [Device(room, name, domain) for room, domains in rooms.items() for domain, names in domains.items() for name in names]
    return Home(rooms=tuple(rooms), floors=tuple(floors), devices=tuple(devices))


def slot_lists(homes: Iterable[Home]) -> dict[str, SlotList]:
    """Return hassil's lists of area, floor and name; a name brings its domain, which templates may require."""
    homes = list(homes)
    names = sorted({(device.name, device.domain) for known in homes for device in known.devices})
    return {
        "area": TextSlotList.from_strings(_unique(room for known in homes for room in known.rooms), allow_template=False, name="area"),
        "floor": TextSlotList.from_strings(_unique(floor for known in homes for floor in known.floors), allow_template=False, name="floor"),
        "name": TextSlotList.from_tuples(((name, name, {"domain": domain}) for name, domain in names), allow_template=False, name="name"),
    }


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))

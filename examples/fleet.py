"""A fleet of devices: ten thousand actors with timers of their own, of which only the busy ones are in memory.

    python examples/fleet.py
    python examples/fleet.py --devices 1000

Each heartbeat of a device says when to expect the next one, and sets a timer. If that fires first, the device marks itself
offline; nobody has to ask. Devices tell their region when they come and go. The regions are always there, under a supervisor;
a device is there when somebody writes to it or its timer fires, and else it is a row in the database.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio

from actorflow import Actor, Child, Limits, Message, Runtime, Supervisor, handler

REGIONS = ("north", "east", "south", "west")
AT_A_TIME = 500  #: heartbeats under way


# --- the actors --------------------------------------------------------------------------------------------------------


class Heartbeat(Message[bool]):
    """A device says that it is there; answered by whether it had been offline."""

    celsius: float
    next_s: float  #: the next one will come in so many seconds, at the latest


class Silence(Message[None]):
    """A device was not heard of for too long."""


class Changed(Message[None]):
    """A device came (+1) or went (-1)."""

    by: int


class Online(Message[int]):
    """How many devices of a region are there?"""


class Device(Actor):
    """One device; its key is "region-number"."""

    online: bool = False
    beats: int = 0
    celsius_max: float = -273.15

    @handler
    async def heard(self, m: Heartbeat) -> bool:
        """A timer has a name: setting it again replaces it, and the one before never fires."""
        came = not self.online
        self.online = True
        self.beats += 1
        self.celsius_max = max(self.celsius_max, m.celsius)
        self.after(m.next_s, Silence(), name="silence")
        if came:
            await self.tell_region(Changed(+1))
        return came

    @handler
    async def silent(self, m: Silence) -> None:
        """What the timer sends; it brings the device back into memory, also after a restart."""
        self.online = False
        await self.tell_region(Changed(-1))

    async def tell_region(self, message: Message[None]) -> None:
        """It leaves when the turn is over, with the new state, or not at all."""
        await Region.at(self.me.key.partition("-")[0]).tell(message)


class Region(Actor, mailbox=100_000):
    """Counts its devices. All of them may come at once: its mailbox is larger than the usual 1,000 messages."""

    online: int = 0

    @handler
    async def changed(self, m: Changed) -> None:
        """One more or less."""
        self.online += m.by

    @handler(readonly=True)
    async def count(self, m: Online) -> int:
        """Answered from what is durable, while others wait in the mailbox."""
        return self.online


TREE = Supervisor("regions", children=[Child(Region, name) for name in REGIONS])
LIMITS = Limits(passivate_after_s=5.0)  #: what was idle for so long leaves memory


# --- the program -------------------------------------------------------------------------------------------------------


async def beat(runtime: Runtime, devices: Sequence[str], next_s: float) -> None:
    """A heartbeat of each of these devices, and its answer."""
    room = anyio.CapacityLimiter(AT_A_TIME)

    async def one(device: str) -> None:
        async with room:
            await runtime.at(Device, device).ask(Heartbeat(20.0, next_s), within="60s")

    begun = time.perf_counter()
    async with anyio.create_task_group() as group:
        for device in devices:
            group.start_soon(one, device)
    rate = len(devices) / (time.perf_counter() - begun)
    print(f"{len(devices):,} heartbeats answered, {rate:,.0f} a second")


async def online(runtime: Runtime) -> dict[str, int]:
    """Devices that are there, by region."""
    return {name: await runtime.at(Region, name).ask(Online()) for name in REGIONS}


async def demo(runtime: Runtime, devices: int) -> None:
    """All devices come; then the north says once more that it is there, and no more."""
    names = [f"{REGIONS[number % len(REGIONS)]}-{number}" for number in range(devices)]
    await beat(runtime, names, next_s=600)
    while sum((counts := await online(runtime)).values()) < devices:  # The last ones are still on their way to a region.
        await anyio.sleep(0.01)
    print("online:", counts)
    await beat(runtime, [name for name in names if name.startswith("north")], next_s=2)
    while (counts := await online(runtime))["north"]:
        await anyio.sleep(0.01)
    print("online:", counts)


def memory_mb() -> float:
    """What this process has used at most; 0 where that is not told."""
    try:
        import resource  # noqa: PLC0415  (Windows has none)
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main(out: Path, devices: int) -> None:
    """Run it over a database."""
    gc.set_threshold(10_000, 100, 1_000)  # With so many objects that live long, a full collection stops the loop for a while.
    before = memory_mb()
    async with Runtime(f"sqlite:///{out / 'fleet.db'}", actors=[Device], tree=[TREE], limits=LIMITS) as runtime:
        await demo(runtime, devices)
        print(f"memory: {before:.0f} MB before, {memory_mb():.0f} MB at most, with {devices:,} devices")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ten thousand devices with timers.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the database")
    parser.add_argument("--devices", type=int, default=10_000)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    anyio.run(partial(main, given.out.absolute(), given.devices))

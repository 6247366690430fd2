"""Clusters of real servers on the loopback interface, whose slots are moved and whose nodes fail while others work with them."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fixtures.server import Argument, Client, Command, Process, ServerError

SLOTS = 16_384
#: Seconds after which a test gives up on a cluster.
GUARD = 120
_KEYS_AT_ONCE = 100
_WITHOUT_SHARDS = ("redis-6.0", "redis-7.0")
#: Seconds in which nodes of later releases have told each other.
_GOSSIP_S = 0.1


class Node:
    """A node of a cluster.

    Attributes:
        port: where it listens.
        name: its id.
        client: of it, for the thread that made the cluster.
    """

    client: Client

    def __init__(self, binary: Path, folder: Path, name: str, conf: Sequence[str]) -> None:
        folder.mkdir()
        self.name = name
        self._config = folder / "nodes.conf"
        lines = ["cluster-enabled yes", f"cluster-config-file {self._config}", "repl-diskless-sync-delay 0", *conf]
        self._process = Process(binary, folder, lines)
        self.port = self._process.port
        self.lives = False

    def know(self, nodes: str) -> None:
        """Write down which nodes there are, before the first start."""
        self._config.write_text(nodes)

    def begin(self) -> None:
        self._process.begin()

    def join(self) -> None:
        self.client = self._process.client()
        self.lives = True

    def kill(self) -> None:
        """End it at once; its data is lost."""
        self.lives = False
        self._process.kill()

    def restart(self) -> None:
        """Start it again at its port, without the data that it had."""
        with contextlib.suppress(AttributeError):
            self.client.close()
        self.begin()
        self.join()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


class Cluster:
    """Masters, each with its share of the slots, then their replicas.

    What changes the cluster takes turns: a slot that is on its way arrives before a node fails over. Any thread may do it.

    Attributes:
        nodes: all nodes, the first masters in front.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self._turn = threading.Lock()

    @property
    def url(self) -> str:
        return self.nodes[0].url

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self._living()]

    def masters(self) -> list[Node]:
        """Those that have slots, as they tell it now."""
        with self._clients() as clients:
            return self._masters(clients)

    def replicas(self, master: Node) -> list[Node]:
        """The nodes that replicate a master now."""
        with self._clients() as clients:
            return self._replicas(clients, master)

    def owner(self, slot: int) -> Node:
        """The node that has a slot."""
        with self._clients() as clients:
            return self._owner(next(iter(clients.values())), slot)

    def slot(self, key: bytes | str) -> int:
        return self._living()[0].client.integer("CLUSTER", "KEYSLOT", key)

    def write(self, commands: Iterable[Command]) -> None:
        """Send commands, each to the node that has its key."""
        asked = list(commands)
        slots = self._living()[0].client.replies([("CLUSTER", "KEYSLOT", _key(command)) for command in asked])
        rows = _owners(self._living()[0].client)
        for node in self.nodes:
            own = {slot for ranges in rows.get(node.name, []) for slot in ranges}
            node.client.pipeline(command for command, slot in zip(asked, slots, strict=True) if slot in own)

    def move_slot(self, slot: int, target: Node | None = None) -> int:
        """Move a slot with its keys, as resharding does it; returns how many keys.

        Args:
            slot: its number.
            target: where to; the next master by default.
        """
        with self._turn, self._clients() as clients:
            source = self._owner(next(iter(clients.values())), slot)
            if target is None:
                masters = self._masters(clients)
                target = masters[(masters.index(source) + 1) % len(masters)]
            if source is target:
                return 0
            clients[target.name].call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
            clients[source.name].call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name)
            moved = 0
            while names := clients[source.name].items("CLUSTER", "GETKEYSINSLOT", slot, _KEYS_AT_ONCE):
                keys = [name for name in names if isinstance(name, bytes)]
                clients[source.name].call("MIGRATE", "127.0.0.1", target.port, "", 0, 60_000, "KEYS", *keys)
                moved += len(keys)
            for name in (target.name, source.name, *clients):
                with contextlib.suppress(ServerError):  # replicas may not be told
                    clients[name].call("CLUSTER", "SETSLOT", slot, "NODE", target.name)
            self._agree(clients, target)
            return moved

    @contextlib.contextmanager
    def moving_slots(self, slots: Sequence[int] = range(SLOTS), seed: int = 1, pause: float = 0.0) -> Iterator[list[int]]:
        """Keep moving slots from node to node, in a thread, until the block ends; yields those that were moved so far.

        Args:
            slots: which of them; the same may move often.
            seed: of the order.
            pause: seconds between two.

        Raises: whatever the thread met, at the end of the block.
        """
        moved: list[int] = []
        trouble: list[BaseException] = []
        ends = threading.Event()
        noise = random.Random(seed)

        def keep_moving() -> None:
            try:
                while not ends.is_set():
                    slot = noise.choice(slots)
                    self.move_slot(slot)
                    moved.append(slot)
                    ends.wait(pause)
            except BaseException as e:
                trouble.append(e)

        thread = threading.Thread(target=keep_moving, daemon=True)
        thread.start()
        try:
            yield moved
        finally:
            ends.set()
            thread.join()
        if trouble:
            raise trouble[0]

    def fail_over(self, master: Node) -> Node:
        """Make a replica of a master the master of its slots, and return it.

        In good order where the old one still runs, which is then its replica; by force where it does not.
        """
        with self._turn, self._clients() as clients:
            replica = self._replicas(clients, master)[0]
            client = clients[replica.name]
            _until(lambda: not master.lives or "master_link_status:up" in client.text("INFO", "replication"))
            if master.lives:  # of Redis 6.0 a replica that has been sent nothing yet counts as behind
                clients[master.name].call("WAIT", len(self.nodes), 1)
            client.call("CLUSTER", "FAILOVER", *([] if master.lives else ["TAKEOVER"]))
            _until(lambda: all(_takes_over(each, replica, master) for each in clients.values()))
            return replica

    def kill(self, node: Node) -> None:
        """End a node at once; what it had is lost, but for its place in the cluster."""
        with self._turn:
            node.kill()

    def restart(self, node: Node) -> None:
        """Start a node again, as a new process, and wait until it takes part."""
        with self._turn:
            node.restart()
            _until(lambda: "cluster_state:ok" in node.client.text("CLUSTER", "INFO"))

    def _agree(self, clients: Mapping[str, Client], target: Node) -> None:
        """Wait until all nodes know what a node has now.

        One that has not heard of it would take a slot back at the next change, and the keys would be lost.
        """
        introduced = time.monotonic() + _GOSSIP_S

        def known() -> bool:
            nonlocal introduced
            wanted = _view(clients[target.name])[target.name]
            waiting = [node for node in self.nodes if node.name in clients and _view(clients[node.name]).get(target.name) != wanted]
            if waiting and time.monotonic() > introduced:
                introduced += 1  # Redis 6.0 tells one node a second; to meet them tells all
                for node in waiting:
                    clients[target.name].call("CLUSTER", "MEET", "127.0.0.1", node.port)
            return not waiting

        _until(known)

    @contextlib.contextmanager
    def _clients(self) -> Iterator[dict[str, Client]]:
        """Clients of the living nodes by their ids, for the thread at hand."""
        with contextlib.ExitStack() as stack:
            clients = {node.name: Client(node.port) for node in self._living()}
            for client in clients.values():
                stack.callback(client.close)
            yield clients

    def _living(self) -> list[Node]:
        return [node for node in self.nodes if node.lives]

    def _masters(self, clients: Mapping[str, Client]) -> list[Node]:
        owners = _owners(next(iter(clients.values())))
        return [node for node in self.nodes if node.name in owners]

    def _replicas(self, clients: Mapping[str, Client], master: Node) -> list[Node]:
        lines = next(iter(clients.values())).text("CLUSTER", "NODES").splitlines()
        names = {line.split()[0] for line in lines if line.split()[3] == master.name}
        return [node for node in self.nodes if node.name in names]

    def _owner(self, client: Client, slot: int) -> Node:
        name = next(name for name, ranges in _owners(client).items() if any(slot in each for each in ranges))
        return next(node for node in self.nodes if node.name == name)


def _key(command: Command) -> Argument:
    """The key of a command."""
    at = {"XGROUP": 2, "XREADGROUP": -2}.get(str(command[0]), 1)
    return command[at]


def _view(client: Client) -> dict[str, tuple[int, list[range]]]:
    """The epoch of each node by its id, and its slots, as a node tells it."""
    found: dict[str, tuple[int, list[range]]] = {}
    for line in client.text("CLUSTER", "NODES").splitlines():
        name, _address, _flags, _master, _ping, _pong, epoch, _link, *slots = line.split()
        parts = [part.partition("-") for part in slots if not part.startswith("[")]  # those are on their way
        found[name] = int(epoch), [range(int(first), int(last or first) + 1) for first, _, last in parts]
    return found


def _owners(client: Client) -> dict[str, list[range]]:
    """The slots of each node that has some."""
    return {name: ranges for name, (_epoch, ranges) in _view(client).items() if ranges}


def _takes_over(client: Client, new: Node, old: Node) -> bool:
    owners = _owners(client)
    return new.name in owners and old.name not in owners


def _takes_part(node: Node, count: int) -> bool:
    """Whether a node knows all others, and has the data of its master where it is a replica."""
    nodes = node.client.text("CLUSTER", "NODES")
    replication = node.client.text("INFO", "replication")
    return (
        "cluster_state:ok" in node.client.text("CLUSTER", "INFO")
        and nodes.count(" connected") == count
        and "fail" not in nodes
        and ("role:master" in replication or "master_link_status:up" in replication)
    )


def _until(there: Callable[[], object]) -> None:
    end = time.monotonic() + GUARD
    while not there():
        assert time.monotonic() < end, "the cluster does not become what it should be"
        time.sleep(0.02)


@contextlib.contextmanager
def cluster(binary: Path, masters: int = 3, replicas: int = 0, conf: Sequence[str] = ()) -> Iterator[Cluster]:
    """A cluster that has all slots, each node of which knows all others.

    Args:
        binary: the program of its servers.
        masters: how many, each with an equal share of the slots in order.
        replicas: how many of each master.
        conf: further lines of each node's configuration.
    """
    folder = Path(tempfile.mkdtemp(prefix="rdbkit-cluster-"))
    nodes: list[Node] = []
    try:
        for i in range(masters * (1 + replicas)):
            nodes.append(Node(binary, folder / str(i), f"{i:02x}" * 20, conf))
        for node in nodes:
            node.know(_nodes_conf(nodes, node, masters, binary.parent.name not in _WITHOUT_SHARDS))
            node.begin()
        for node in nodes:
            node.join()
        for node in nodes:
            _until(partial(_takes_part, node, len(nodes)))
        yield Cluster(nodes)
    finally:
        for node in nodes:
            if node.lives:
                node.client.close()
            node.kill()
        shutil.rmtree(folder)


def _nodes_conf(nodes: list[Node], myself: Node, masters: int, shards: bool) -> str:
    """What a node writes down about its cluster, so that none has to be introduced to another.

    Later releases take their file for corrupted where a replica is in another shard than its master.
    """
    lines = []
    for i, node in enumerate(nodes):
        first, last = SLOTS * i // masters, SLOTS * (i + 1) // masters - 1
        role, of, slots = ("master", "-", f" {first}-{last}") if i < masters else ("slave", nodes[i % masters].name, "")
        epoch = 1 + i % masters
        mine = "myself," if node is myself else ""
        shard = f",,shard-id={i % masters + 160:02x}" + "0" * 38 if shards else ""
        place = f"127.0.0.1:{node.port}@{node.port + 10_000}{shard}"
        lines.append(f"{node.name} {place} {mine}{role} {of} 0 0 {epoch} connected{slots}\n")
    return "".join(lines) + f"vars currentEpoch {masters} lastVoteEpoch 0\n"

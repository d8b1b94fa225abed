"""`tree`: the supervisors of a service and their children, as they are now."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text
from rich.tree import Tree

from actorflow.cli.connect import perform
from actorflow.cli.exits import Exit
from actorflow.cli.options import DEFAULTS, Options, address
from actorflow.cli.printer import COLORS, Printer
from actorflow.cli.text import length, short
from actorflow.operations import Operations, TreeNode


def show_tree(*, options: Options = DEFAULTS) -> int:
    """Show the live tree of the service: what runs, what waits, what failed last, how many restarts are left."""
    printer = Printer(options)

    async def shown(operations: Operations) -> int:
        root = await operations.tree()
        match options.output:
            case "json":
                printer.json(root)
            case "ids":
                printer.ids(address(node.name) for node in _actors(root))
            case "table" if root.children:
                drawn = [_drawn(child) for child in root.children]
                printer.show(*drawn)
            case "table":
                printer.note("The service has no supervisors: Runtime(tree=[...]) declares them.")
        return Exit.OK

    return perform(options.db, shown)


def _actors(node: TreeNode) -> Iterator[TreeNode]:
    if node.what == "actor":
        yield node
    for child in node.children:
        yield from _actors(child)


def _drawn(node: TreeNode) -> Tree:
    tree = Tree(_line(node))
    for child in node.children:
        tree.children.append(_drawn(child))
    return tree


def _line(node: TreeNode) -> Text:
    words = [f"{node.restarts:,} restarts"] if node.restarts else []
    words += [f"{node.restarts_left:,} restarts left"] if node.restarts_left is not None else []
    words += [f"{node.mailbox:,} messages wait"] if node.mailbox else []
    words += [f"the oldest for {length(node.oldest_s)}"] if node.oldest_s is not None else []
    words += [f"waits for {short(', '.join(node.waits_for), 100)}"] if node.waits_for else []
    words += [f"last failure: {short(node.last_failure, 100)}"] if node.last_failure else []
    text = Text(short(node.name), "bold" if node.what == "supervisor" else "")
    text.append(f"  {short(node.state)}", COLORS.get(node.state, "cyan"))
    text.append(f"  {'; '.join(words)}" if words else "", "dim")
    return text

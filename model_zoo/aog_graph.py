"""The And-Or graph of AOGNet: a grammar of the parts of a feature map.

Li, Song and Wu, AOGNets: Compositional Grammatical Architectures for Deep Learning,
CVPR 2019. The channels of a feature map are divided into `units`, the words of a
sentence. Each node of the graph stands for a phrase, an interval of units:

* a terminal node reads the phrase from the input;
* an AND node composes it from a left and a right part, both OR nodes;
* an OR node sums the alternatives: the terminal node and the ways to split the phrase.

Lateral connections join AND nodes, and OR nodes, of phrases of the same length. The
graph is plain Python; `model_zoo.aognet` makes layers of it.
"""

import collections
import dataclasses
import functools
import itertools

TERMINAL, AND, OR = "terminal", "AND", "OR"


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of an And-Or graph.

    Attributes:
        number: Place in the order of creation; the root is 0.
        kind: `TERMINAL`, `AND` or `OR`.
        first, last: First and last unit of the phrase, from 0.
        split: Units of the left part of an AND node; `None` for other nodes.
    """

    number: int
    kind: str
    first: int
    last: int
    split: int | None = None

    @property
    def width(self) -> int:
        """Number of units."""
        return self.last - self.first + 1


@dataclasses.dataclass(frozen=True)
class AndOrGraph:
    """An And-Or graph.

    Attributes:
        nodes: Nodes in the order of creation.
        edges: For each node, the numbers of the nodes whose outputs it receives: its
            children, then lateral ones.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, ...], ...]

    @property
    def root(self) -> Node:
        """The OR node of the whole feature map."""
        return self.nodes[0]

    def children(self, node: Node) -> list[Node]:
        """Returns the parts of an AND node, or the alternatives of an OR node."""
        nodes = (self.nodes[child] for child in self.edges[node.number])
        return [child for child in nodes if child.kind != node.kind]

    def laterals(self, node: Node) -> list[Node]:
        """Returns the nodes that are joined to a node laterally: at most one."""
        nodes = (self.nodes[child] for child in self.edges[node.number])
        return [child for child in nodes if child.kind == node.kind]

    def parents(self, node: Node) -> list[Node]:
        """Returns all nodes that receive the output of this one, laterally or not."""
        return [
            parent for parent in self.nodes if node.number in self.edges[parent.number]
        ]

    def shortcut_laterals(self, node: Node) -> list[Node]:
        """Returns the lateral children that share no parent with the node.

        A shared parent already has the lateral child in its own shortcut.
        """
        parents = set(self.parents(node))
        return [
            child
            for child in self.laterals(node)
            if parents.isdisjoint(self.parents(child))
        ]

    @functools.cached_property
    def paths(self) -> dict[Node, int]:
        """For each node, the number of paths from the root without lateral edges."""
        counts = dict.fromkeys(self.nodes, 0)
        counts[self.root] = 1
        for node in reversed(self.order):  # parents before their children
            for child in self.children(node):
                counts[child] += counts[node]
        return counts

    @functools.cached_property
    def order(self) -> tuple[Node, ...]:
        """Nodes in depth-first order, children before their parents; the root last."""
        visited = {}

        def visit(number):
            if number not in visited:
                for child in self.edges[number]:
                    visit(child)
                visited[number] = self.nodes[number]

        visit(0)
        return tuple(visited.values())


def and_or_graph(
    units: int, symmetry_removal: int = 0, hierarchy: int = 4
) -> AndOrGraph:
    """Builds the And-Or graph of a number of units.

    Args:
        units: Units of the feature map, >= 1.
        symmetry_removal: Of two splits that mirror each other, (1, 3) and (3, 1), `0`
            keeps both, `1` the one whose left part is shorter, `2` the other one.
        hierarchy: `4` for lateral connections, `0` for none. The authors' code has
            others, which no published network uses.

    Raises:
        TypeError: If an argument is not an int.
        ValueError: If an argument is out of range.
    """
    given = {
        "units": units,
        "symmetry_removal": symmetry_removal,
        "hierarchy": hierarchy,
    }
    for name, value in given.items():
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"`{name}` must be an int. Received: {name}={value!r}.")
    if units < 1:
        raise ValueError(f"`units` must be an int >= 1. Received: units={units!r}.")
    if symmetry_removal not in (0, 1, 2):
        raise ValueError(
            "`symmetry_removal` must be 0, 1 or 2. "
            f"Received: symmetry_removal={symmetry_removal!r}."
        )
    if hierarchy not in (0, 4):
        raise ValueError(
            f"`hierarchy` must be 0 or 4. Received: hierarchy={hierarchy!r}."
        )
    nodes, edges = [], []
    numbers, queue = {}, collections.deque()

    def number_of(kind, first, last, split=None):
        """Returns the number of a node, which is created if it is new."""
        key = kind, first, last, split
        if key not in numbers:
            numbers[key] = len(nodes)
            nodes.append(Node(len(nodes), *key))
            edges.append([])
            queue.append(nodes[-1])
        return numbers[key]

    number_of(OR, 0, units - 1)
    while queue:
        node = queue.popleft()
        first, last, split = node.first, node.last, node.split
        if node.kind == OR:
            children = [number_of(TERMINAL, first, last)]
            children += [
                number_of(AND, first, last, left)
                for left in _splits(node.width, symmetry_removal)
            ]
        elif node.kind == AND:
            left = number_of(OR, first, first + split - 1)
            children = [left, number_of(OR, first + split, last)]
        else:
            continue
        edges[node.number] = _published_order(children)
    if hierarchy == 4:
        for child, parent in _lateral_edges(nodes):
            edges[parent].append(child)
    return AndOrGraph(tuple(nodes), tuple(map(tuple, edges)))


def _splits(width, symmetry_removal):
    """Returns the widths of the left part for which an OR node has an AND node."""
    widths = range(1, width)
    if symmetry_removal == 1:
        return [left for left in widths if left <= width - left]
    if symmetry_removal == 2:
        return [left for left in reversed(widths) if left >= width - left]
    return list(widths)


def _published_order(numbers):
    """Returns children in the order of the authors' code, which holds them in a set.

    An AND node concatenates its parts in this order, so that some published networks
    have the right part first. It is the order in which CPython iterates over small
    integers, a table of slots with open addressing; written out here, so that no
    interpreter can change the function of a network.
    """
    size = 8
    while 5 * len(numbers) >= 3 * (size - 1):
        size *= 4
    slots = {}
    for number in numbers:
        slot, perturbation = number % size, number
        while slot in slots:
            perturbation >>= 5
            slot = (5 * slot + 1 + perturbation) % size
        slots[slot] = number
    return [slots[slot] for slot in sorted(slots)]


def _lateral_edges(nodes):
    """Yields (child, parent) of the lateral connections.

    Nodes of one kind and width form a chain from right to left for AND nodes, from left
    to right for OR nodes. The direction is reversed for a width that follows one with a
    single node, as in the authors' code.
    """
    chains = (
        (AND, lambda node: (node.first + node.split, node.first), True),
        (OR, lambda node: node.first, False),
    )
    for kind, place, leftwards in chains:
        same_kind = sorted(
            (node for node in nodes if node.kind == kind), key=lambda node: node.width
        )
        reverse = False
        for _, group in itertools.groupby(same_kind, key=lambda node: node.width):
            chain = sorted(group, key=place)
            if len(chain) < 2:
                reverse = True
                continue
            for left, right in itertools.pairwise(chain):
                if leftwards != reverse:
                    yield right.number, left.number
                else:
                    yield left.number, right.number
            reverse = False

"""And-Or graphs equal those of the authors' code."""

import json

import pytest
from golden import GOLDEN

from model_zoo.aog_graph import AND, OR, TERMINAL, and_or_graph

KINDS = {"T": TERMINAL, "AND": AND, "OR": OR}
ARGUMENTS = ("units", "symmetry_removal", "hierarchy")
GRAPHS = {
    tuple(graph[name] for name in ARGUMENTS): graph
    for graph in json.loads((GOLDEN / "aog_graphs.json").read_text())
}


def numbers(nodes):
    return [node.number for node in nodes]


def test_reference_has_all_sizes_up_to_6_in_every_mode():
    assert set(GRAPHS) == {
        (units, removal, hierarchy)
        for units in range(1, 7)
        for removal in (0, 1, 2)
        for hierarchy in (0, 4)
    }


@pytest.mark.parametrize("arguments", GRAPHS, ids=str)
def test_graph_equals_the_reference(arguments):
    graph, expected = and_or_graph(*arguments), GRAPHS[arguments]
    assert numbers(graph.order) == expected["dfs"]
    assert numbers(graph.nodes) == list(range(len(expected["nodes"])))
    for node, known in zip(graph.nodes, expected["nodes"], strict=True):
        kind, first, last, split, children, parents, paths = known
        assert (node.kind, node.first, node.last) == (KINDS[kind], first, last)
        assert node.split == split
        assert list(graph.edges[node.number]) == children
        assert numbers(graph.parents(node)) == parents
        assert graph.paths[node] == paths


def test_right_part_comes_first_in_two_nodes_of_the_published_graphs():
    for removal, number in ((1, 10), (2, 14)):
        graph = and_or_graph(4, removal)
        first, second = graph.children(graph.nodes[number])
        assert first.first > second.first


def test_shortcut_has_only_laterals_without_a_shared_parent():
    """Tables of the specification, 4 units."""
    expected = {1: {12, 16}, 2: {12, 15}}
    for removal, nodes in expected.items():
        graph = and_or_graph(4, removal)
        found = {node.number for node in graph.nodes if graph.shortcut_laterals(node)}
        assert found == nodes


def test_large_graphs_have_a_leaf_for_each_unit():
    graph = and_or_graph(30, 1)
    assert len(graph.order) == len(graph.nodes)
    leaves = [n for n in graph.nodes if n.kind == TERMINAL and n.width == 1]
    assert sorted(node.first for node in leaves) == list(range(30))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "`units` must be an int >= 1. Received: units=0"),
        ((4, 3), "`symmetry_removal` must be 0, 1 or 2"),
        ((4, 0, 5), "`hierarchy` must be 0 or 4. Received: hierarchy=5"),
    ],
)
def test_bad_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        and_or_graph(*arguments)


@pytest.mark.parametrize("arguments", [(2.0,), (True,), (2, "1"), (2, 0, 4.0)])
def test_arguments_of_other_types_raise(arguments):
    with pytest.raises(TypeError, match="must be an int. Received: "):
        and_or_graph(*arguments)

"""No two files of bitline import each other, directly or in a circle."""

from collections.abc import Iterator

import grimp


def circles(graph: grimp.ImportGraph) -> Iterator[list[str]]:
    """Yield the sets of files that can all be reached from each other, by the imports of functions and of types too."""
    left = {name for name in graph.modules if graph.find_modules_directly_imported_by(name)}
    while left:
        name = left.pop()
        circle = graph.find_downstream_modules(name) & graph.find_upstream_modules(name) | {name}
        left -= circle
        if len(circle) > 1:
            yield sorted(circle)


def test_no_files_import_each_other_in_a_circle():
    graph = grimp.build_graph("bitline", exclude_type_checking_imports=False, cache_dir=None)
    assert list(circles(graph)) == []


def test_a_circle_is_told():
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")):
        graph.add_module(importer)
        graph.add_module(imported)
        graph.add_import(importer=importer, imported=imported)
    assert list(circles(graph)) == [["a", "b", "c"]]

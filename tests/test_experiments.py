"""Every experiment runs at a tiny size, and its data are what its text says; nothing here looks at an accuracy."""

import csv
import importlib

import numpy as np
import pytest

pytest.importorskip("torch")
nx = pytest.importorskip("networkx")
pytest.importorskip("matplotlib")

from experiments import data, graphs, image, motif, report, syntax_tree, training  # noqa: E402

NAMES = ("motif", "image", "sequence", "syntax_tree", "training_cost")


@pytest.mark.parametrize("name", NAMES)
def test_experiment_runs(name, tmp_path, capsys):
    if name == "sequence":
        pytest.importorskip("mnist1d", reason="mnist1d generates the sequences")
    if name == "image" and not data.FASHION_MNIST.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    importlib.import_module(f"experiments.{name}").main(["--quick", "--output", str(tmp_path)])
    with (tmp_path / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert (tmp_path / f"{name}.svg").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert all(row["variant"] in shown for row in rows if "variant" in row)


def test_missing_images_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "FASHION_MNIST", tmp_path / "nothing")
    with pytest.raises(data.MissingDataError, match="dataset-fashion-mnist"):
        data.fashion_mnist("train")


def test_rate_is_chosen_on_validation_data_of_a_seed_that_is_not_reported(monkeypatch):
    def found(variant, seed, rate, epochs):
        tunes = seed == training.TUNING
        validation = {0.1: 0.5, 0.2: 0.7, 0.3: 0.6}[rate] if tunes else 0.4
        return training.Run(variant.name, seed, rate, not tunes, epochs, validation, 0.9 if tunes else 0.3, 0)

    monkeypatch.setattr(training, "trained", found)
    variant = training.Variant("model", None, None)
    runs = list(training.compare([variant], training.Budget(epochs=1, rates=(0.1, 0.2, 0.3), seeds=3)))
    reported = report.by_variant(runs)["model"]
    assert [run.seed for run in reported] == [0, 1, 2]
    assert training.TUNING not in (0, 1, 2)
    assert {run.rate for run in reported} == {0.2}
    assert "30.0 ± 0.0" in report.table(runs)


def test_planted_motif_is_there_and_degrees_match_in_the_others():
    motif = graphs.MOTIFS["caveman"]()
    rng = np.random.default_rng(0)
    with_motif, without = (make(motif, 0, 0.0, 0.0, rng) for make in (graphs.planted, graphs.unplanted))
    assert nx.is_isomorphic(nx.from_scipy_sparse_array(with_motif), motif)
    assert without.nnz == 2 * motif.number_of_edges()
    assert abs(with_motif - with_motif.T).max() == 0
    star = graphs.planted(nx.star_graph(3), 0, 0.0, 0.0, rng)
    np.testing.assert_array_equal(graphs.degree_features(star, 2), [[1, 1], [3, 0], [3, 0], [3, 0]])


@pytest.mark.parametrize("mask", [*motif.MASKS.values(), graphs.gcn, graphs.alone])
def test_masks_of_graphs_made_together_are_those_of_each(mask):
    if mask is graphs.walks_sampled:
        pytest.skip("walks are drawn for all graphs together")
    found = [
        graphs.planted(make(), 0, 0.0, 0.0, np.random.default_rng(0))
        for make in (graphs.MOTIFS["cycle"], graphs.MOTIFS["grid"])
    ]
    made = graphs.blocks(found, mask)
    for block, A in zip(made, found, strict=True):
        np.testing.assert_allclose(block, mask([A]).to_dense(), atol=1e-6)


def test_patches_hold_the_pixels_of_squares():
    images = np.arange(28 * 28, dtype=np.float32).reshape(1, 28, 28)
    tokens = image._patches(image.torch.from_numpy(images), 4, permute=False).numpy() + 0.5
    np.testing.assert_allclose(tokens[0, 8].reshape(4, 4), images[0, 4:8, 4:8])  # second row, second column of 7 x 7


def test_syntax_trees_are_in_preorder_and_shuffling_keeps_their_shape():
    module = syntax_tree.ast.parse("def f(x):\n    return x + 1")
    parents, names = syntax_tree._tree(module.body[0])
    assert names == ["FunctionDef", "arguments", "arg", "Return", "BinOp", "Name", "Add", "Constant"]
    assert parents.tolist() == [-1, 0, 1, 0, 3, 4, 4, 4]
    trees, rng, found = [(parents, names)] * 2, np.random.default_rng(0), {}
    for kind in ("tree", "shuffled", "row"):
        found[kind] = syntax_tree.tree_decay(syntax_tree._forest(trees, kind, rng), 1.0).to_dense()
        assert not found[kind][:8, 8:].any()
    one, other = (np.sort(found[kind][:8, :8], axis=None) for kind in ("tree", "shuffled"))
    np.testing.assert_allclose(one, other)
    assert np.abs(found["tree"] - found["shuffled"]).max() > 0.1
    positions = np.arange(8)
    np.testing.assert_allclose(found["row"][8:, 8:], np.exp(-np.abs(positions[:, None] - positions)))


def test_hidden_nodes_of_a_function_look_alike_without_a_mask():
    module = syntax_tree.ast.parse("def f(x):\n    return x + 1")
    trees, config = [syntax_tree._tree(module.body[0])] * 2, syntax_tree.QUICK
    known = {name: index for index, name in enumerate(sorted(set(trees[0][1])))}
    alike = {}
    for kind in ("none", "tree"):
        (given, mask), _ = syntax_tree._batch(trees, known, config, kind, np.random.default_rng(0))
        given[[2, 7, 10, 15]] = config.classes  # an argument's name and a constant, in either function
        syntax_tree.torch.manual_seed(0)
        scores = syntax_tree.Guessing(config, decays=kind != "none")(given, mask).detach().numpy()
        alike[kind] = np.allclose(scores[2], scores[7], rtol=1e-4, atol=1e-5)
    assert alike == {"none": True, "tree": False}

"""Which films a step of attention mining erases, which it leaves whole, and what is laid over the erased ones."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from cxrmine.boxes.masks import gather, write_masks
from cxrmine.data.index import BOX_SCHEMA, Index
from cxrmine.errors import CxrError
from cxrmine.learn.parallel import accelerator
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder
from cxrmine.stages.rounds import Rounds
from cxrmine.stages.training import taught_rows

Label = int | None
HAS, HAS_NOT, UNSURE = (1, 0), (0, 0), (-1, None)  # of Mass and Nodule


def films(*rows: tuple[str, tuple[Label, Label]]) -> Index:
    """Rows of (split, labels); a split that ends in + has truth boxes."""
    labels = [pa.array([row[1][c] for row in rows], pa.int8()) for c in (0, 1)]
    table = pa.table(
        {
            "image_id": [f"{i:02}.png" for i in range(len(rows))],
            "path": pa.nulls(len(rows), pa.string()),
            "split": [split.rstrip("+") for split, _ in rows],
            "patient_id": [f"p{i}" for i in range(len(rows))],
            "view": pa.nulls(len(rows), pa.string()),
            "labels": pa.StructArray.from_arrays(labels, names=["Mass", "Nodule"]),
            "boxed": [split.endswith("+") for split, _ in rows],
        }
    )
    return Index(Path("d"), "made up", ("Mass", "Nodule"), table, BOX_SCHEMA.empty_table())


# 0 to 4 have a finding, and of 5 to 19 nobody knows one; 20 and 21 are test films with boxes, the last without a label
FILMS = films(
    *[("train", HAS)] * 5, *[("train", HAS_NOT)] * 10, *[("train", UNSURE)] * 5, ("test+", HAS), ("test+", HAS_NOT)
)
TRAIN = FILMS.select("train")


def rounds(*more: str, index: Index = TRAIN, folder: Path = Path("no such folder")) -> Rounds:
    """Batches of 8, of which 2 are erased: two steps an epoch on 20 films."""
    recipe = load_recipe("demo-am", ["train.batch_size=8", "am.erase_share=0.25", *more])
    return Rounds(recipe, index, taught_rows(recipe, index), RunFolder(folder), accelerator("cpu"), 1)


def erased(of: Rounds, epochs: int) -> np.ndarray:
    return np.concatenate([chosen for epoch in range(epochs) for chosen, _ in of.groups(epoch, 0)])


@pytest.mark.parametrize("index", [TRAIN, films(*[("train", HAS)] * 20)])
def test_a_share_of_each_batch_is_erased_and_no_film_is_on_both_sides(index: Index) -> None:
    of, mined = rounds(index=index), set(np.flatnonzero((index.labels() == 1).any(axis=1)))
    for epoch in range(30):
        steps = list(of.groups(epoch, 0))
        assert [(len(chosen), len(others)) for chosen, others in steps] == [(2, 6)] * 2
        chosen, others = (np.concatenate(part) for part in zip(*steps, strict=True))
        assert set(chosen) <= mined, "only films that have a finding are mined"
        assert len(set(others)) == len(others)
        assert not set(chosen) & set(others)


@pytest.mark.parametrize(
    ("share", "count"),
    [(0.125, 1), (0.01, 1), (0.25, 2), (0.4, 3), (1.0, 8)],  # 3.2 of 8 are 3, and 0.08 are 1
)
def test_how_many_are_erased_by_hand(share: float, count: int) -> None:
    for chosen, others in rounds(f"am.erase_share={share}").groups(0, 0):
        assert len(chosen) == count
        assert len(others) == 8 - count


def test_without_knowledge_preservation_all_are_erased() -> None:
    for chosen, others in rounds("am.kp=none").groups(4, 0):
        assert len(chosen) == 8
        assert len(others) == 0
        assert set(chosen) == {0, 1, 2, 3, 4}


def test_films_to_erase_can_be_all_films() -> None:
    assert set(erased(rounds("am.erase_from=all"), 10)) == set(range(20))
    assert set(erased(rounds("am.erase_from=mined"), 10)) == {0, 1, 2, 3, 4}


def test_box_images_are_erased_and_nothing_else_sees_them() -> None:
    """The paper's setting: 20 has boxes and a finding; 21 has boxes, and nobody says of what."""
    of = rounds('train.include=["boxed"]', index=FILMS.select("train,boxed"))
    assert of.taught.tolist() == list(range(20))
    for epoch in range(10):
        for chosen, others in of.groups(epoch, 0):
            assert chosen.tolist() == [20, 20], "there is but one"
            assert len(others) == 6
            assert set(others) <= set(range(20))


def test_where_nothing_is_to_be_mined_there_are_no_rounds() -> None:
    with pytest.raises(CxrError, match="No training image has a finding"):
        rounds(index=films(*[("train", HAS_NOT)] * 9))


def test_each_mined_film_is_erased_once_a_turn() -> None:
    """Four a an epoch: of five films a turn is longer than an epoch, and ends in the middle of a step."""
    turns = erased(rounds(), 5).reshape(4, 5)
    assert [sorted(turn) for turn in turns] == [[0, 1, 2, 3, 4]] * 4
    assert len({tuple(turn) for turn in turns}) > 1, "every turn has an order of its own"
    more_than_a_turn_a_step = erased(rounds("am.kp=none"), 5).reshape(16, 5)
    assert [sorted(turn) for turn in more_than_a_turn_a_step] == [[0, 1, 2, 3, 4]] * 16


def test_an_epoch_goes_on_where_it_stopped() -> None:
    whole, rest = list(rounds().groups(7, 0)), list(rounds().groups(7, 1))
    assert len(rest) == 1
    assert [part.tolist() for part in rest[0]] == [part.tolist() for part in whole[1]]
    again = list(rounds().groups(7, 0))
    assert [[part.tolist() for part in step] for step in again] == [[part.tolist() for part in step] for step in whole]


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    """Of the others, too: here they are none of the films that are erased."""
    boxed = 'train.include=["boxed"]', FILMS.select("train,boxed")
    orders = {
        tuple(np.concatenate([others for _, others in of.groups(epoch, 0)]))
        for of in (rounds(f"train.seed={seed}", boxed[0], index=boxed[1]) for seed in (0, 1))
        for epoch in (0, 1)
    }
    assert len(orders) == 4
    assert erased(rounds("train.seed=0"), 10).tolist() != erased(rounds("train.seed=1"), 10).tolist()


NETWORK = SimpleNamespace(map_stride=16.0, cell_offset=lambda: 6.0)


def test_what_is_laid_over_a_batch_by_hand(tmp_path: Path) -> None:
    """Masks of 03.png in Nodule and of 01.png in Mass; 04.png has erased nothing, 10.png is not to be erased."""
    mask, other = np.ones((3, 3), bool), np.ones((3, 3), bool)
    mask[0, 2], other[1:, 1] = False, False
    pairs = [("03.png", "Nodule"), ("01.png", "Mass"), ("10.png", "Mass")]
    write_masks(
        RunFolder(tmp_path).masks(1), gather(pairs, [np.packbits(kept) for kept in (mask, other, other)], (3, 3))
    )
    of = rounds(folder=tmp_path)
    of.begin(2, NETWORK)
    guide = of.guide(np.array([10, 4, 3, 1]), np.array([1, 3, 4]))
    assert guide.where.tolist() == [False, True, True, True]
    expected = np.zeros((4, 2, 3, 3))
    expected[2, 1, 0, 2] = 1
    expected[3, 0, 1:, 1] = 1
    assert np.array_equal(guide.cells.numpy(), expected)
    assert (guide.stride, guide.offset) == (16, 6)


def test_the_first_round_erases_nothing(tmp_path: Path) -> None:
    of = rounds(folder=tmp_path)
    of.begin(1, NETWORK)
    guide = of.guide(np.array([10, 4]), np.array([4]))
    assert guide.where.tolist() == [False, True]
    assert torch.equal(guide.cells, torch.zeros(2, 2, 1, 1))
    assert not list(tmp_path.iterdir()), "and needs no masks"

"""Recipes are strict: what is misspelt, out of range or contradictory is refused in one sentence."""

from pathlib import Path

import pytest

from cxrmine.errors import CxrError
from cxrmine.recipe_files import (
    builtin_recipes,
    differences,
    load_overrides,
    load_recipe,
    parse_toml,
    to_toml,
    validate_recipe,
)


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_shipped_recipe_loads_and_survives_being_written(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert validate_recipe(parse_toml(to_toml(recipe), name), name) == recipe


def test_the_recipes_of_organs_are_shipped() -> None:
    assert {"organs", "demo-organs", "irnet", "demo-irnet"} <= set(builtin_recipes())
    whole = load_recipe("irnet")
    assert whole.irnet is not None
    assert (whole.data.size, whole.data.fit, whole.irnet.organs) == (224, "crop", "runs/organs")


def test_a_misspelt_key_names_the_nearest() -> None:
    with pytest.raises(CxrError, match=r"no key train\.batchsize\. Did you mean batch_size\?"):
        load_recipe("cam", ["train.batchsize=4"])
    with pytest.raises(CxrError, match=r"no key netwerk\. Did you mean network\?"):
        load_recipe("cam", ["netwerk.stride=8"])
    with pytest.raises(CxrError, match=r"no key train\.phases\.0\.epoch\. Did you mean epochs\?"):
        load_recipe("cam", ["train.phases.0.epoch=4"])


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(CxrError, match=r"no recipe named camm.*Did you mean cam\?"):
        load_recipe("camm")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=0", "train.batch_size"),
        ("train.batch_size=many", "train.batch_size"),
        ("network.stride=7", "network.stride"),
        ("mine.cuts=[0.5, 1.5]", "mine.cuts must lie between 0 and 1"),
        ("network.backbone=small-resnet", 'has no network.weights = "imagenet"'),
        ("train.phases.7.lr=1", "there is no item 7"),
        ("train.seed", "not of the form key=value"),
    ],
)
def test_what_cannot_be_is_refused(override: str, message: str) -> None:
    with pytest.raises(CxrError, match=message.replace("[", r"\[")):
        load_recipe("cam", [override])


def test_a_contradiction_names_both_keys(tmp_path: Path) -> None:
    with pytest.raises(CxrError, match=r'until = "level".*schedule = "cosine"'):
        load_recipe("demo", ["train.phases.0.until=level"])


def test_differences_name_key_and_both_values() -> None:
    one, other = load_recipe("demo"), load_recipe("demo", ["train.seed=3", "train.phases.0.lr=0.5"])
    assert differences(one, one) == []
    assert differences(one, other) == ["train.phases.0.lr: 0.003 → 0.5", "train.seed: 0 → 3"]


def test_only_the_named_section_can_be_changed_afterwards() -> None:
    recipe = load_recipe("demo")
    assert load_overrides(recipe, ["mine.top=1"], only=("mine",)).mine.top == 1
    with pytest.raises(CxrError, match="cannot change a trained run"):
        load_overrides(recipe, ["train.seed=1"], only=("mine",))


def test_invalid_toml_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("name = ")
    with pytest.raises(CxrError, match=r"mine\.toml is not valid TOML"):
        load_recipe(str(file))

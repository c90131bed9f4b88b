"""What a recipe says of one method alone: a section a paper, named as its recipe is."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AttentionMining(Section):
    msa: Literal["none", "bilinear", "deconv"] = Field(
        "bilinear", description="How the last stage comes to twice its resolution; none: it stays as it is."
    )
    msa_channels: tuple[int, int] = Field((512, 256), description="Channels of the last stage and of the finer one.")
    erase_share: float = Field(0.125, gt=0, le=1, description="n/N: share of a batch that is erased.")
    erase_from: Literal["mined", "all"] = Field(
        "mined", description="Whence these films: those with a finding that are mined, or all."
    )
    erase_absent: bool = Field(False, description="Erase maps of findings that a film does not have, too.")
    kp: Literal["none", "vanilla", "full"] = Field(
        "full", description="none: all films erased; vanilla: the share; full: the others keep the old features, too."
    )
    kp_norm: Literal["batch", "image"] = Field("batch", description="Equation 4's norm: over the batch, or a film.")
    kp_weight: float = Field(0.5, ge=0, description="λ, the weight of knowledge preservation.")
    kp_balance: Literal["fixed", "loss"] = Field(
        "fixed", description="loss: λ is a share of the classification loss, whatever the preservation loss is."
    )


class HierarchicalAttention(Section):
    foreground: Literal["none", "channel", "position", "both"] = Field(
        "both", description="The foreground block; none: without it and its convolutions, the backbone alone."
    )
    channels: int = Field(512, ge=1, description="Channels of the features that heads and maps are made of.")
    reduction: int = Field(8, ge=1, description="How much narrower the block's channel weights are in their middle.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of these channels that a step leaves out.")
    bias: bool = Field(False, description="Whether the heads have a bias, which starts at the log odds.")
    positive: bool = Field(True, description="Learn whether there is any finding, and its map.")
    bound: bool = Field(True, description="Findings' maps shall lie inside the positive map.")
    union: bool = Field(True, description="The positive map shall lie inside the union of the findings' maps.")
    positive_weight: float = Field(0.01, ge=0, description="λ1, the weight of learning whether there is any finding.")
    bound_weight: float = Field(0.001, ge=0, description="λ2, the weight of the bound loss.")
    union_weight: float = Field(0.001, ge=0, description="λ3, the weight of the union loss.")
    box_loss: Literal["amse", "mse"] = Field("amse", description="How maps are compared with boxes.")
    box_weight: float = Field(0.5, ge=0, description="z, the weight of that loss.")
    average: Literal["image", "finding"] = Field(
        "image", description="Bound and box losses: over an image's findings, or (code) over a finding's images, first."
    )
    normalise: Literal["minmax", "max"] = Field("minmax", description="How a map comes to 0 to 1.")
    alpha: float = Field(100.0, gt=0, description="α, the sharpness of the soft mask.")
    beta: float = Field(0.4, gt=0, lt=1, description="β, where the soft mask of a normalised map is a half.")
    soft_mask: Literal["normalised", "raw"] = Field(
        "normalised", description="Whereof the soft mask in bound and union is made; raw: of maps as they are (code)."
    )
    raw_beta: float = Field(0.75, gt=0, description="β of raw maps.")
    soft_first: bool = Field(True, description="Box losses: soft mask, then input size; false: the other way (code).")
    detach_heads: bool = Field(False, description="Maps do not teach the heads' weights (code).")

    @model_validator(mode="after")
    def _bound_needs_a_positive_map(self) -> Self:
        if (self.bound or self.union) and not self.positive:
            raise ValueError("ham.bound and ham.union compare with the positive map: they need ham.positive = true")
        return self


class OrganWeighted(Section):
    attention: bool = Field(True, description="Weigh the film by attention over its scales.")
    gate: bool = Field(True, description="Features that lie outside lungs and heart become 0.")
    organs: str = Field("", description="The run of the recipe organs that knows where they are.")
    sigmoid: bool = Field(False, description="Features go through a sigmoid before they are gated (code).")
    cut: float = Field(0.5, gt=0, le=1, description="The share of a cell that they cover from which it is kept.")
    organ_size: int = Field(0, ge=0, description="Side of that run's films; it is filled in.")
    organ_channels: tuple[int, ...] = Field((), description="Channels of that run's network; they are filled in.")
    organ_names: tuple[str, ...] = Field((), description="The organs that it knows; they are filled in.")

    @model_validator(mode="after")
    def _gate_needs_organs(self) -> Self:
        if self.gate and not self.organs:
            raise ValueError("irnet.gate needs irnet.organs, a finished run of the recipe organs")
        return self


class SeverityCurriculum(Section):
    iterations: int = Field(2, ge=0, le=20, description="Rounds, if there are new seeds for each; 0: the baseline.")
    stages: Literal["adding", "alone"] = Field(
        "adding", description="A stage of the curriculum has the more severe films, too; or those of its own severity."
    )
    threshold: float = Field(0.9, gt=0, lt=1, description="t: the probability above which a film is a seed.")
    regression: Literal["map", "channels"] = Field(
        "map", description="Equation 2: maps, counted once a channel; or what each channel adds to them."
    )
    weight: float = Field(0.005, ge=0, description="λ, the weight of the regression of maps.")
    balance: Literal["fixed", "loss"] = Field(
        "fixed", description="loss: λ is a share of the classification loss, whatever the regression loss is."
    )

"""How a model is scored, by each metric."""

from typing import Literal

from pydantic import Field, model_validator

from experiment.config.strict import Positive, Strict


class PerplexityEvaluation(Strict):
    """Perplexity with a sliding window."""

    context: Positive = Field(description="tokens a forward pass sees")
    stride: Positive = Field(
        description="tokens from one window to the next, below `context`: those that are scored"
    )
    average: Literal["tokens", "windows"] = Field(
        "windows", description="what the loss is averaged over: tokens, or the means of the windows"
    )
    batch_size: Positive = Field(description="windows a forward pass")
    max_tokens: Positive | None = Field(None, description="the first of the split; unset: all")

    @model_validator(mode="after")
    def _covers_every_token(self) -> "PerplexityEvaluation":
        if self.stride >= self.context:
            most = f"{self.context - 1}, below context"
            raise ValueError(f"stride: has to be from 1 to {most} (is {self.stride})")
        return self


class AccuracyEvaluation(Strict):
    """Top-1 accuracy."""

    batch_size: Positive = Field(description="images a forward pass")
    max_examples: Positive | None = Field(None, description="the first of the split; unset: all")


class RetrievalEvaluation(Strict):
    """Top-1 accuracy of finding a query's passage among all of the split, by cosine similarity."""

    batch_size: Positive = Field(description="texts a forward pass")
    max_examples: Positive | None = Field(
        None,
        description="the first paragraphs that are long enough; unset: all. The fewer there are, "
        "the easier each is found",
    )


class BleuEvaluation(Strict):
    """sacreBLEU of beam-search translations."""

    num_beams: Positive = Field(description="beam width; 1 is greedy")
    max_length: Positive = Field(description="tokens generated at most")
    batch_size: Positive = Field(description="sentences a forward pass")
    max_examples: Positive | None = Field(None, description="the first of the split; unset: all")

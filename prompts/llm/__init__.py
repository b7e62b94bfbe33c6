"""The ``llm`` reader: a language model names targets; everything it says is checked against the text."""

from tissuetalk.prompts.llm.reader import LanguageModelReader
from tissuetalk.prompts.llm.seam import LanguageModel, Reply, ScriptedModel, Turn

__all__ = ["LanguageModel", "LanguageModelReader", "Reply", "ScriptedModel", "Turn"]

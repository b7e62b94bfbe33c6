"""The ``llm`` engine: a language model names targets; everything it says is checked against the text."""

from tissuetalk.prompts.llm.engine import LLMEngine
from tissuetalk.prompts.llm.seam import LanguageModel, Reply, ScriptedModel, Turn

__all__ = ["LLMEngine", "LanguageModel", "Reply", "ScriptedModel", "Turn"]

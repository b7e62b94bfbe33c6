"""Settings come from the environment, are checked, and cost nothing until a language model is wanted."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from openai_server import Scripted, openai_server

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.prompts.readers import LanguageSettings, make_reader

ANSWER = {
    "kind": "request",
    "organ": None,
    "targets": [
        {"evidence": "necrosis", "words": "necrosis", "label": None, "assertion": "present", "relation": None}
    ],
    "measures": [],
}


def test_an_engine_is_set_up_by_environment_variables(monkeypatch):
    with openai_server([ANSWER]) as server:
        monkeypatch.setenv("TISSUETALK_LLM_URL", server.url + "/")
        monkeypatch.setenv("TISSUETALK_LLM_MODEL", "served")
        monkeypatch.setenv("TISSUETALK_LLM_API_KEY", "sesame")
        monkeypatch.setenv("TISSUETALK_LLM_MAX_TOKENS", "300")
        request = make_reader("llm").translate("necrosis please")
    assert [target.words for target in request.targets] == ["necrosis"]
    assert server.asked[0]["max_completion_tokens"] == 300
    assert server.headers[0]["authorization"] == "Bearer sesame"


def test_a_server_without_a_key_gets_no_key_of_other_software(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of somebody else")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "of somebody else")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "of somebody else")
    with openai_server([ANSWER]) as server:
        make_reader("llm", LanguageSettings(url=server.url, model="served", timeout_s=120)).translate(
            "necrosis"
        )
    assert server.asked and "somebody else" not in str(server.headers)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "file:///etc/passwd", "http://", "ftp://example.org/v1"]
)
def test_without_a_usable_address_the_variable_is_named(url):
    with pytest.raises(ModelUnavailableError, match="TISSUETALK_LLM_URL"):
        make_reader("llm", LanguageSettings(url=url, model="served"))


@pytest.mark.parametrize("url", ["http://ann:sesame@127.0.0.1/v1", "http://127.0.0.1/v1?key=sesame"])
def test_an_address_that_holds_a_secret_is_refused_without_showing_it(url):
    with pytest.raises(ModelUnavailableError, match="TISSUETALK_LLM_API_KEY") as caught:
        make_reader("llm", LanguageSettings(url=url, model="served"))
    assert "sesame" not in str(caught.value)


def test_without_a_model_the_variable_is_named():
    with pytest.raises(ModelUnavailableError, match="TISSUETALK_LLM_MODEL"):
        make_reader("llm", LanguageSettings(url="http://127.0.0.1:8000/v1"))


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf", "1e9"])
def test_a_number_that_makes_no_sense_is_refused_by_name(value):
    with pytest.raises(ModelUnavailableError, match="TISSUETALK_LLM_TIMEOUT_S"):
        LanguageSettings.from_environment({"TISSUETALK_LLM_TIMEOUT_S": value})


def test_the_key_is_never_printed():
    assert "sesame" not in repr(LanguageSettings(api_key="sesame"))


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(InvalidArgumentError, match="rules, llm, hybrid"):
        make_reader("oracle")


def test_rules_and_hybrid_start_without_any_language_model_code():
    heavy = "{'langchain_openai', 'langchain_core', 'openai', 'tiktoken', 'litellm', 'torch', 'spacy'}"
    code = (
        "import sys; from tissuetalk.prompts.readers import make_reader; make_reader('rules');"
        f"make_reader('hybrid'); print(sorted({heavy} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_without_the_extra_the_way_to_install_it_is_named():
    code = (
        "import importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'langchain_openai' else find(name, *a);"
        "from tissuetalk.prompts.readers import *\n"
        "try: make_reader('llm', LanguageSettings(url='http://127.0.0.1:8000/v1', model='m'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ModelUnavailableError" in said.stdout and "pip install 'tissuetalk[llm]'" in said.stdout


def test_a_redirect_is_not_followed_to_another_host():
    with (
        openai_server([ANSWER]) as elsewhere,
        openai_server([Scripted(status=307, location=elsewhere.url)]) as server,
    ):
        with pytest.raises(ModelUnavailableError, match="HTTP 307"):
            make_reader("llm", LanguageSettings(url=server.url, model="m", timeout_s=120)).translate(
                "necrosis"
            )
        assert elsewhere.asked == []


def test_the_documentation_names_every_variable_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "language-models.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `TISSUETALK_LLM_(\w+)` \|[^|]*\| ([^|]*) \|$", page, re.MULTILINE))
    written = {name.lower(): default.strip() for name, default in rows.items()}
    expected = {one.name: one.default for one in fields(LanguageSettings)}
    expected = {
        name: f"{value:g}" if isinstance(value, int | float) else value for name, value in expected.items()
    }
    assert written == expected | {"url": "none", "model": "none", "api_key": "empty"}

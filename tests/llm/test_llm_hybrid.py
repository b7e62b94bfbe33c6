"""Hybrid is the rules, with their gaps filled and every disagreement put before the user."""

import pytest
from openai_server import Scripted, openai_server

from tissuetalk.models.errors import CancelledError, NoTargetInWordsError
from tissuetalk.prompts.llm import LanguageModelReader, ScriptedModel
from tissuetalk.prompts.llm.hybrid import HybridReader
from tissuetalk.prompts.names import unread
from tissuetalk.prompts.readers import LanguageSettings, make_reader, rule_reader

NOTHING = "Hello, thanks."
CLEAR = "Colon biopsy: adenocarcinoma with necrosis. No granulomas."
OPEN = "Colon biopsy: adenocarcinoma with quokkoid bodies. No granulomas."


def finding(evidence, label, assertion="present", words=None):
    named = {"evidence": evidence, "words": words or evidence, "label": label, "assertion": assertion}
    return {**named, "relation": None}


def answer(*targets, kind="report"):
    return {"kind": kind, "organ": "colon", "targets": list(targets), "measures": []}


def hybrid(*answers):
    model = ScriptedModel(answers)
    return HybridReader(rule_reader(), lambda: LanguageModelReader(model)), model


def by_evidence(request):
    return {target.evidence: target for target in request.targets}


def test_what_the_rules_settle_is_never_sent():
    reader, model = hybrid()
    assert reader.translate(CLEAR) == rule_reader().translate(CLEAR) and model.asked == []


def test_a_known_object_without_a_label_is_settled():
    reader, model = hybrid()
    reader.translate("Breast: invasive ductal carcinoma. Calcifications present.")
    assert model.asked == []


def test_an_unknown_object_gets_the_language_models_label():
    reader, model = hybrid(answer(finding("quokkoid bodies", "colon-nuclei-dead", words="quokkoid bodies")))
    request = reader.translate(OPEN)
    (filled,) = [target for target in request.targets if "quokkoid" in target.evidence]
    assert filled.label == "colon-nuclei-dead" and not filled.ambiguous
    assert "quokkoid" in model.asked[0][1].text.split("could not place them:")[1]


def test_the_other_targets_stay_as_the_rules_read_them():
    reader, _ = hybrid(answer(finding("quokkoid bodies", None)))
    ruled, request = rule_reader().translate(OPEN), reader.translate(OPEN)
    assert request.targets[: len(ruled.targets)] == ruled.targets


def test_a_label_of_an_organ_the_text_does_not_name_is_only_an_alternative():
    reader, _ = hybrid(answer(finding("quokkoid", "breast-tissue-nerve"), kind="request"))
    (target,) = reader.translate("segment the quokkoid").targets
    assert target.label is None and target.alternatives == ("breast-tissue-nerve",)


def test_a_disagreement_about_presence_is_ambiguous_and_says_who_read_what():
    denied = finding("adenocarcinoma", "colon-tissue-malignant lesion", "absent")
    reader, _ = hybrid(answer(finding("quokkoid bodies", None), denied))
    tumour = by_evidence(reader.translate(OPEN))["adenocarcinoma"]
    assert tumour.assertion == "present"
    assert "rules read this as present, the language model as absent" in tumour.ambiguous


def test_present_against_uncertain_is_uncertain_and_still_looked_for():
    doubted = finding("adenocarcinoma", "colon-tissue-malignant lesion", "uncertain")
    reader, _ = hybrid(answer(finding("quokkoid bodies", None), doubted))
    tumour = by_evidence(reader.translate(OPEN))["adenocarcinoma"]
    assert (tumour.assertion, tumour.ambiguous) == ("uncertain", "")


def test_the_same_object_under_a_near_label_is_compared_too():
    denied = finding("adenocarcinoma", "colon-nuclei-neoplastic", "absent")
    reader, _ = hybrid(answer(denied))
    tumour = by_evidence(reader.translate(OPEN))["adenocarcinoma"]
    assert tumour.label == "colon-tissue-malignant lesion" and tumour.ambiguous


def test_what_only_the_language_model_reads_elsewhere_is_left_to_the_user():
    reader, _ = hybrid(
        answer(finding("quokkoid bodies", None), finding("Colon biopsy", "colon-tissue-gland"))
    )
    extra = reader.translate(OPEN).targets[-1]
    assert extra.label == "colon-tissue-gland" and extra.ambiguous.startswith(
        "only the language model reads this"
    )


def test_what_only_the_language_model_rules_out_changes_nothing():
    reader, _ = hybrid(answer(finding("Colon biopsy", "colon-cell-muscle", "absent")))
    assert len(reader.translate(OPEN).targets) == len(rule_reader().translate(OPEN).targets)


def test_an_invention_is_reported_and_changes_nothing():
    reader, _ = hybrid(answer(finding("giant cells", "colon-nuclei-dead")))
    request = reader.translate(OPEN)
    assert request.targets == rule_reader().translate(OPEN).targets
    assert "could not place" in "; ".join(request.notes)


@pytest.mark.parametrize(
    "answers", [[Scripted(status=500)], ["prose"], [Scripted(status=429)], [Scripted(wait_s=60)]],
    ids=["failing", "prose", "busy", "hanging"],
)  # fmt: skip
def test_a_language_model_that_is_no_help_costs_nothing_the_rules_found(answers):
    with openai_server(answers) as server:
        settings = LanguageSettings(url=server.url, model="m", timeout_s=2)
        request = make_reader("hybrid", settings).translate(OPEN)
    assert request.targets == rule_reader().translate(OPEN).targets
    assert request.notes[-1].startswith("answered by the rules alone: ")


def test_without_any_language_model_set_up_hybrid_is_the_rules_and_says_so():
    request = make_reader("hybrid", LanguageSettings()).translate(OPEN)
    assert request.targets == rule_reader().translate(OPEN).targets
    assert "TISSUETALK_LLM_URL" in request.notes[-1]


def test_a_text_the_rules_find_nothing_in_is_read_by_the_language_model():
    reader, model = hybrid(answer(finding("Hello", None), kind="request"))
    request = reader.translate(NOTHING)
    assert len(model.asked) == 1 and "language model alone" in request.notes[-1]


def test_a_text_nobody_finds_anything_in_is_refused_in_the_rules_words():
    with pytest.raises(NoTargetInWordsError, match="name an object") as caught:
        make_reader("hybrid", LanguageSettings()).translate(NOTHING)
    assert "TISSUETALK_LLM_URL" in str(caught.value)


def test_a_text_without_words_is_not_sent():
    reader, model = hybrid()
    with pytest.raises(NoTargetInWordsError):
        reader.translate("12 / 34")
    assert model.asked == []


def test_cancelling_is_not_taken_for_a_missing_model():
    reader, _ = hybrid(answer())
    with pytest.raises(CancelledError):
        reader.translate(OPEN, cancelled=lambda: True)


@pytest.mark.parametrize(
    ("text", "gaps"),
    [
        ("Colon: adenocarcinoma with necrosis. Lymphocytes are present.", []),
        ("FINAL DIAGNOSIS: prognosis unclear, anastomosis intact.", []),
        ("Crypts show quokkoid bodies and snarkocytes.", ["quokkoid bodies", "snarkocytes"]),
        ("", []),
    ],
)
def test_only_words_that_sound_like_an_unknown_object_are_gaps(text, gaps):
    assert [text[span.start : span.end] for span in unread(text)] == gaps

"""Which words of a gateway mean that moderation refused, and whether it refused the input or the output.

A refused *input* is refused again: prompt or pictures have to change. A refused *output* was made and then
withheld, and the same request may pass next time. Both look like any failure, and every retry of either is
paid for (Runway's documents: a moderated job costs as much as a good one), so they are told from ordinary
failures here: by identifiers, which are believed wherever they stand, and by phrases, which are believed only
once what is said of an outage is taken out ("the moderation service timed out" is no refusal).

A gateway's new word is a new row of :data:`SIGNS`. The first row that hits decides, so what names input or
output comes before what names neither; where nothing names one, it was the input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

__all__ = ["SIGNS", "Refusal", "Sign", "is_bot_check", "refusal_of"]


#: Characters of a gateway's words that are looked at: a reply may be megabytes of one word.
LONGEST = 2000


class Refusal(StrEnum):
    """What moderation refused."""

    INPUT = "input"
    """Prompt or pictures: the same request is refused again."""
    OUTPUT = "output"
    """What was generated: the same request may pass next time."""


@dataclass(frozen=True)
class Sign:
    """One row: who says what, and what it means.

    :param pattern: searched for in a code, a reason or a status word, whatever its case.
    :param phrase: the pattern is plain language. Such a row is not believed of a server's failure, nor where
        the words speak of an outage.
    """

    refusal: Refusal
    source: str
    pattern: str
    phrase: bool = False


def _code(refusal: Refusal, source: str, pattern: str) -> Sign:
    return Sign(refusal, source, pattern)


def _phrase(refusal: Refusal, source: str, pattern: str) -> Sign:
    return Sign(refusal, source, pattern, phrase=True)


_IN, _OUT = Refusal.INPUT, Refusal.OUTPUT
_MADE = r"(?:video|image|audio|content|data|media|text|frame|clip|result)s?"
_GIVEN = r"(?:prompt|text|image|video|audio|input|output|content|description|request|material|reference)s?"
# Not what happens to files as well: "rejected by the store", "audio filter graph".
_BAD = (
    r"(?:sensitive|inappropriate|unsafe|harmful|flagged|moderated|filtered|withheld|copyright\w*|blocked"
    r"|violat\w*\b(?! [^.;]{0,20}(?:schema|constraint|limit)))"
)
_BAD_ZH = r"(?:敏感|违规|涉敏|不当|不合规|违禁|审核|风险|风控)"

SIGNS: tuple[Sign, ...] = (
    # -- identifiers that name the side --
    _code(_OUT, "Seedance (Ark, BytePlus)", r"Output\w*SensitiveContentDetected"),
    _code(_IN, "Seedance (Ark, BytePlus)", r"Input\w*SensitiveContentDetected"),
    _code(_OUT, "Volcengine content security", r"Output\w*RiskDetection\b"),
    _code(_IN, "Volcengine content security", r"Input\w*RiskDetection\b|ContentRiskBlocked"),
    _code(_OUT, "Runway", r"\bSAFETY\.OUTPUT\b"),
    _code(_IN, "Runway", r"\bSAFETY\.INPUT\b"),
    _code(_OUT, "MiniMax", r"^1027$"),
    _code(_IN, "MiniMax", r"^1026$"),
    _code(_OUT, "Veo behind a Flow bridge", r"PUBLIC_ERROR_\w*AUDIO\w*(?:FILTER|SAFETY|BLOCK|POLICY)"),
    _code(_OUT, "Veo (Vertex AI, Gemini API)", r"raiMediaFiltered"),
    _code(_OUT, "Vidu", r"\bCreationPolicyViolation\b"),
    _code(_IN, "Vidu", r"\bAuditSubmitIllegal\b|\bTaskPromptPolicyViolation\b"),
    _code(_OUT, "Black Forest Labs, a status word", r"^content moderated$"),
    _code(_IN, "Black Forest Labs, a status word", r"^request moderated$"),
    # -- phrases that name the output --
    _phrase(_OUT, "MiniMax", r"\boutput[ _](?:new_)?sensitive"),
    _phrase(
        _OUT,
        "Seedance, DashScope ('Output data may contain inappropriate content')",
        rf"\b(?:output|generated|resulting)\s+(?:\w+\s+){{0,2}}?{_MADE}\b[^.;]{{0,60}}\b{_BAD}",
    ),
    _phrase(
        _OUT,
        "xAI ('Generated image rejected by content moderation')",
        rf"\b(?:output|generated|resulting)\s+(?:\w+\s+){{0,2}}?{_MADE}\b[^.;]{{0,40}}\bmoderation\b"
        r"|\boutput (?:was )?(?:blocked|filtered|flagged|withheld|rejected) by\b[^.;]{0,20}"
        r"\b(?:content|safety|moderation)\b",
    ),
    _phrase(
        _OUT,
        "openai-format servers",
        r"\b(?:flagged|blocked|moderated|filtered|withheld) (?:the |your |this |our )?(?:output|generated) "
        rf"{_MADE}\b",
    ),
    _phrase(
        _OUT,
        "Veo's audio filter",
        r"issue with the audio (?:for|of|in) your prompt"
        r"|\baudio\b[^.;]{0,20}\b(?:safety|filtered|flagged|blocked)\b"
        r"|\baudio\b[^.;]{0,60}\bsafety (?:filter|polic|reason)"
        r"|\b(?:blocked|rejected|flagged|refused|filtered|withheld)\b[^.;]{0,30}\baudio\b",
    ),
    _phrase(_OUT, "Veo, of what it filtered", r"could not generate \d+ videos? based on the prompt"),
    _phrase(
        _OUT,
        "MiniMax and resellers, in Chinese",
        rf"(?:输出|生成的|生成物|生成结果|成片)(?:(?!失败|输入)[^，。,.;；：:]){{0,12}}{_BAD_ZH}",
    ),
    # -- identifiers that do not name the side --
    _code(_IN, "Seedance, a code cut short", r"SensitiveContentDetected"),
    _code(
        _IN,
        "Veo behind a Flow bridge",
        r"PUBLIC_ERROR_\w*(?:FILTER|PEOPLE|UNSAFE|SEXUAL|MINOR|CHILD|VIOLEN|HATE|DANGER|CELEBRIT|PROHIBIT)",
    ),
    _code(_IN, "DashScope", r"Data_?Inspection_?Failed"),
    _code(
        _IN,
        "openai-format gateways, fal, Luma, Azure",
        r"moderation_blocked|content_policy_violation|prompt_blocked|\bcontent_moderated\b"
        r"|\bcontent_filter(?:ed)?\b|ResponsibleAIPolicyViolation",
    ),
    _code(_IN, "new-api", r"sensitive_words_detected|violation_fee\."),
    # Its words, too: by the phrases below, a security policy is of another kind.
    _code(_IN, "Kling, Zhipu", r"^1301$|\btrigger the content security policy of the platform"),
    _code(_IN, "Gemini", r"\bPROHIBITED_CONTENT\b"),
    _code(_IN, "Sora bridges, a bot check", r"sentinel_block"),
    _code(_IN, "a status word of resellers", r"^nsfw$|^moderated$"),
    # -- phrases that do not name the side --
    _phrase(
        _IN,
        "any gateway",
        r"moderation|content.polic(?:y|ies)|content filter(?:ed|ing)?\b|unsafe (?:prompt|content|image)|nsfw",
    ),
    _phrase(
        _IN,
        "Kling, fal",
        r"^\W*risk[- _]control|\bpass\b[^.;]{0,30}\brisk[- ]control|\b"
        + _GIVEN
        + r"\b[^.;]{0,40}\brisk[- ]control",
    ),
    _phrase(
        _IN,
        "Sora, Veo, OpenAI format ('may violate our guardrails')",
        r"\bviolat\w*\b[^.;]{0,60}\b(?:polic(?:y|ies)|guidelines?|guardrails?|terms|standards|practices)\b"
        r"|\bagainst (?:our|the)\b[^.;]{0,30}\b(?:polic(?:y|ies)|guidelines?|terms|rules)\b",
    ),
    _phrase(
        _IN,
        "MiniMax, Seedance, DashScope",
        r"\b(?:contains?|includes?|deemed|considered|is|are|be) (?:\w+ ){0,2}(?:sensitive|harmful|indecent)\b"
        r"|\b(?:sensitive|inappropriate|prohibited|harmful) (?:content(?!-)|information|words?|terms?"
        r"|material|language|texts?|images?)\b|\binput[ _](?:new_)?sensitive",
    ),
    _phrase(
        _IN,
        "fal ('flagged by a content checker'), OpenAI ('our safety system')",
        r"\b(?:flagged|blocked|rejected|refused|filtered|denied)\b[^.;]{0,40}"
        r"\b(?:safety|content (?:checker|filter\w*|safety|review)|censor\w*|guidelines?|responsible ai)\b"
        r"|\b(?:safety|content) (?:system|filter|check\w*|polic\w+|guidelines?|review|settings)\b[^.;]{0,40}"
        r"\b(?:block|reject|refus|violat|trigger|not pass)",
    ),
    _phrase(
        _IN,
        "Veo, Seedance, of real people",
        r"\b(?:detect|contain|depict|prohibit|cannot|can't|can not|not allowed|unable to)\w*\b[^.;]{0,50}"
        r"\b(?:real (?:people|persons?|humans?)|public figures?|celebrit\w+|prominent (?:people|persons?)"
        r"|likeness\w*|minors)\b",
    ),
    _phrase(
        _IN,
        "Seedance, Sora, of rights",
        r"\b(?:violat|infring|protected|restrict|related to|similarity to)\w*\b[^.;]{0,40}"
        r"\b(?:copyright\w*|trademarks?|intellectual property|third-party content)\b"
        r"|\bcopyright\w*\b[^.;]{0,20}\b(?:violat|infring|restrict)",
    ),
    _phrase(_IN, "any gateway, of what is shown", r"\b(?:porn\w*|nudity|sexually|sexual content)\b"),
    _phrase(
        _IN,
        "gateways in Chinese",
        r"审核|违规|敏感|违禁|涉黄|涉政|涉暴|涉敏|不当内容|不合规|不良信息|色情|真人形象|侵权"
        r"|(?:内容|文本|提示词|图片|视频|输入|未通过|命中)[^，。]{0,12}风控|风控[^，。]{0,8}(?:未通过|不通过|拦截)"
        r"|内容安全[^，。]{0,8}(?:未通过|不通过|拦截|拒绝)|触发[^，。]{0,6}(?:内容安全|风控)",
    ),
)

_CHECK = r"(?:moderation|safety|polic(?:y|ies)|risk[- ]control|content (?:filter|checker|safety|review)|nsfw)"
_OUTAGE = (
    r"(?:time[- ]?outs?|timed out|unavailable|overload\w*|rate.?limit\w*|too many requests|unreachable|"
    r"connection|internal error|server error|not configured|deprecated|busy)"
)
# What speaks of a check without being its verdict: an outage of it, a policy or sensitivity of another kind,
# an account that is restricted.
_NO_VERDICT = (
    rf"{_CHECK}\b[^.;。]{{0,40}}\b{_OUTAGE}|\b{_OUTAGE}\b[^.;。]{{0,40}}\b{_CHECK}"
    r"|\b(?:security|bucket|retry|cache|caching|retention|scaling|iam|network|routing|cors|naming) "
    r"polic(?:y|ies)"
    r"|\b(?:case|time|price|latency)[- ]?(?:in)?sensitive|大小写(?:不)?敏感"
    r"|\b(?:account|api key|token|ip address)\b[^.;]{0,40}risk[- ]control"
    r"|(?:账[号户]|密钥|IP)[^，。]{0,10}风控"
    r"|(?:审核|审查|风控|敏感词?|内容安全)[^，。]{0,10}(?:超时|异常|繁忙|不可用|故障|服务错误|系统错误)"
    r"|(?:超时|异常|繁忙|不可用|故障)[^，。]{0,6}(?:审核|审查|风控)"
)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # Not while this is imported, which is each time a Dag file is parsed.
    return re.compile(pattern, re.I)


def refusal_of(*words: str | None, codes_only: bool = False) -> Refusal | None:
    """What moderation refused, read from reason, code and status word; None where it did not.

    :param words: each as the gateway wrote it; None does not count.
    :param codes_only: believe identifiers alone, as is right for a server's failure.
    """
    said = [word.strip()[:LONGEST] for word in words if word]
    plain = [] if codes_only else [_compiled(_NO_VERDICT).sub(" ", word) for word in said]
    for sign in SIGNS:
        if any(_compiled(sign.pattern).search(word) for word in (plain if sign.phrase else said)):
            return sign.refusal
    return None


def is_bot_check(*words: str | None) -> bool:
    """Whether it was Sora's ``sentinel_block``: by one report another User-Agent cures it (sora2api #59)."""
    return any(word and "sentinel_block" in word.lower() for word in words)

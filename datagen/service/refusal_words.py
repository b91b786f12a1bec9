"""Words by which services say why they refuse: their codes in snake_case, and their sentences.

They are put together from what such sentences must name (money, a key, a model, a place, a field) and what is said of
it, within one sentence and near to each other. :mod:`datagen.service.refusals` says in which order they count.
"""

import re


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


CREDIT_CODE = _any(
    r"insufficient_\w*(?:quota|balance|credit|fund)|not_enough_\w*(?:balance|credit)|(?:no|out_of)_credit",
    r"exceeded_current_quota|quota_failed|free_tier_only|budget_exceeded|spend(?:ing)?_limit",
    r"billing|payment_required|arrear|overdue|set_limit_exceeded",
    r"credits?_(?:limit|exhausted|balance|depleted|required)|balance_(?:insufficient|not_enough)",
)
FILTER_CODE = _any(
    r"content_?(?:filter|policy|management|moderation|safety|violation)|policy_violation|usage_policy",
    r"moderat|data_?inspection|responsible_?ai|safety|guardrail|prohibited_(?:content|use)|harm|recitation",
    r"\bsensitive|(?:content|input|output|text|data)_sensitive|blocklist|invalid_prompt|(?<!account_)flagged",
)
KEY_CODE = _any(
    r"(?:invalid|incorrect|missing)_\w*(?:key|authentication|auth_token)|key_invalid|authentication|unauthenticated",
    r"unauthorized|deactivated|terminated",
)
MODEL_CODE = _any(
    r"model_(?:not|access|decommissioned|deprecated|unavailable|closed)|(?:invalid|unknown|unsupported)_model",
    r"no_such_model|deployment_not_found",
)
REGION_CODE = _any(
    r"unsupported_(?:country|region|location)|(?:country|region|location)_\w*(?:supported|allowed)"
)
RATE_CODE = _any(
    r"rate_?limit|throttl|resource_exhausted|too_many_requests|overloaded|concurren|capacity|(?:^|\s)limit_exceeded"
)
RATE = _any(
    r"rate[ -]?limit|too many requests|\bper (?:second|minute|hour|day)\b|\b[RT]P[MD]\b|频率|限流",
    r"\b(?:requests?|qps|tokens?) limit (?:is |was )?(?:reached|exceeded)",
)
LENGTH_CODE = _any(r"context_?(?:length|window)|(?:tokens?|length)_\w*(?:exceeded|too_long)|string_too_long")
PARAMETER_CODE = _any(
    r"(?:unsupported|unknown|invalid|unexpected|unrecognized)_\w*(?:param|value|field|argument|type)",
    r"extra_forbidden",
)

_MONEY = r"(?:credits?|funds|(?:account |credit |wallet |prepaid |cash )?balance)"
_LACKS_BEFORE = (
    r"(?:insufficient|not (?:enough|sufficient)|(?:do|does|did)(?:n.t| not) have|no|zero|negative|empty|out of"
    r"|exhausted|depleted|used (?:up|all)|spent all|ran out|below|too low)"
)
_LACKS_BEHIND = (
    r"(?:insufficient|not (?:enough|sufficient)|too low|exhausted|depleted|used up|empty|zero|negative|run out|ran out"
    r"|expired|below|required)"
)
#: There is no money left.
CREDIT = _any(
    rf"\b{_LACKS_BEFORE}\b[^.;!?]{{0,30}}?\b{_MONEY}\b",
    rf"\b{_MONEY}\b[^.;!?]{{0,30}}?\b{_LACKS_BEHIND}\b",
    r"\bexceeded\b[^.;!?]{0,30}\bcredits?\b",
    r"good standing|\barrears\b|\boverdue\b|\bunpaid\b|past due|payment (?:is )?required|\brecharge\b",
    r"(?:spend(?:ing)?|credit|budget) (?:limit|cap)\b|\bbudget\b[^.;]{0,20}\bexceeded|\bkey limit exceeded",
    r"exceeded\b[^.;]{0,20}\bbudget|\btrial\b[^.;]{0,20}\b(?:expired|ended|is over)",
    r"\b(?:plan|subscription)\b[^.;]{0,20}\b(?:expired|ended)",
    r"余额|欠费|充值|计费资源|额度(?:已)?(?:不足|用尽|耗尽|用完)|资源包|残高|クレジット|잔액|크레딧",
    r"недостаточно средств|баланс|\bguthaben|cr[eé]dits? insuf|solde insuf|saldo insuf|sin saldo|cr[eé]ditos? insuf",
)
#: Perhaps there is no money left; a limit of rate is told in such words, too.
PERHAPS_CREDIT = _any(
    r"\bbilling\b|payment method|usage limits?\b|need a[^.;]{0,20}\bsubscription|upgrade your|\btop[- ]?up",
    r"\$ ?0(?:\.0+)?(?![.\d])|\b(?:plan|subscription)\b[^.;]{0,20}\brequired|paid (?:plan|subscription)",
    r"\b(?:add|purchase|buy|more)\b[^.;]{0,20}\bcredits?\b",
    r"credit card|\bcard\b[^.;]{0,20}\bdeclined",
)
#: With the status of a limit of rate (429), this is one.
QUOTA = _any(
    r"quota\b[^.;]{0,40}\b(?:exceeded|exhausted|used up|insufficient)|(?:exceeded|insufficient)\b[^.;]{0,20}\bquota"
)
FILTER = _any(
    r"content[ _]?(?:management|filter|policy|policies|moderation|safety)|content exists risk|high[- ]risk|unsafe",
    r"safety (?:system|filter|polic|setting|reason|check)|(?:usage|use|our) polic(?:y|ies)|responsible ai",
    r"guardrails?\b|\bflagged|\bmoderat|inappropriate|harmful|prohibited[ _](?:content|use|words?)",
    r"(?:community|content|our|safety|usage) guidelines|self[- ]harm|\bhate speech|\brecitation",
    r"sensitive (?:content|information|word|data|topic)|\b(?:input|output|prompt)\b[^.;]{0,20}[ _]sensitive",
    r"violat\w+[^.;]{0,60}(?:polic|guideline|term|rule)",
    r"blocked (?:by|due to|because)[^.;]{0,30}(?:polic|filter|safety|content)",
    r"\b(?:prompt|input|content|output|text)s? (?:is|was|were|has been) (?:blocked|filtered|censored)",
    r"敏感|违规|不安全|不合规|违反|违禁|审核|不当|不適切|부적절|inapro?piad|inadequad|inappropri|unangemessen|недопустим|неприемлем",
    r"\b(?:bloque|bloqu[eé]|blockiert|заблокиров)\w*[^.;]{0,40}\b(?:pol[ií]ti|richtlini|политик|filtr|filter)",
)
ACCOUNT = _any(
    r"\b(?:account|organi[sz]ation|project|api key|team|workspace)\b[^.;]{0,60}"
    r"\b(?:suspended|deactivated|banned|disabled|terminated|locked|inactive|not active|restricted)"
)
KEY = _any(
    r"\b(?:invalid|incorrect|missing|wrong|expired|revoked|malformed|no|unknown)\b[^.;]{0,20}"
    r"(?:\bapi[ -]?key|credential|access token|auth(?:entication|orization))",
    r"(?:\bapi[ -]?key|credentials?|access token)\b[^.;]{0,40}"
    r"\b(?:not valid|invalid|incorrect|expired|missing|revoked|not found|required|disabled)",
    r"(?:authentication|log ?in) fail|密钥|鉴权|令牌",
)
MODEL = _any(
    r"\bmodels?\b[^;]{0,100}?(?:do(?:es)?(?: not|n.t) exist|not exist|not found|no longer|decommissioned"
    r"|is deprecated|is not a valid|not available|(?:not|n.t) have access|could not be found)",
    r"(?:unknown|no such|invalid|unsupported|could not find|cannot find|not a valid|access to)(?: the)? model\b",
    r"\bmodel\W+\S{1,80} (?:is|was) (?:currently )?not (?:supported|available|allowed|found)",
    r"模型[^。]{0,30}(?:不存在|未找到|无权|下线)|no endpoints found",
)
_PLACE = r"(?:countr(?:y|ies)|regions?|territor(?:y|ies)|locations?)"
REGION = _any(
    rf"\b{_PLACE}\b[^.;]{{0,40}}(?:not|n.t|un)[ -]?(?:supported|available|allowed|served)",
    rf"not (?:available|supported|allowed|offered) (?:in|from|for) (?:your|this)[^.;]{{0,20}}{_PLACE}",
    rf"unsupported {_PLACE}|地区|所在国家",
)
LENGTH = _any(
    r"context (?:length|window|size)|\b(?:maximum|input|prompt) (?:\w+ )?length|too many (?:input |prompt )?tokens",
    r"\b(?:prompt|input|messages?|request)\b[^.;]{0,30}(?:too long|too large|exceeds?)|reduce the length",
    r"max_new_tokens|上下文|过长|超长",
)
#: A field or its value is not taken.
NOT_TAKEN = _any(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|\bextra\b|not permitted|not allowed|deprecated",
    r"invalid|not (?:a )?valid|illegal|cannot|\bonly\b|(?:must|should|may|can) (?:only )?be|out of range|exceed",
    r"(?:greater|less|larger|smaller|higher|lower) than|at (?:most|least)|too (?:large|high|small|low|big)",
    r"unavailable|must contain|maximum|minimum|不支持|无效|非法|范围|参数",
)
#: A quota of a day or longer.
DAILY = _any(
    r"\bper[ _-]?(?:day|week|month)|per_?day|\b(?:daily|weekly|monthly)\b|\b[RT]PD\b|\ba day\b|今日|每日|每天|每月"
)
STREAM_ONLY = _any(
    r"only\b[^.;]{0,40}\bstream|stream\w*[^.;]{0,30}(?:required|must be (?:true|set|enabled))|enable the stream"
)

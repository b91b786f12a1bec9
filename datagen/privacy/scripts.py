"""Patterns for names in scripts without capitals, behind a label or beside a title.

Nothing but the label tells a name there, so a value counts only if it ends its field. Labels are spelled plainly, as
the texts are: without vowel signs that are combining marks.
"""

from functools import partial

from datagen.privacy.pattern import Pattern
from datagen.privacy.spelling import plain

_HAN, _KANA, _HANGUL = "\u3400-\u9fff", "\u3040-\u30ff", "\uac00-\ud7a3"
_ARABIC, _HEBREW, _DEVANAGARI = "\u0620-\u064a\u0671-\u06d3", "\u05d0-\u05ea", "\u0900-\u097f"
_SURNAMES = (
    "王李张張刘劉陈陳杨楊黄黃赵趙吴吳周徐孙孫马馬朱胡郭何林罗羅高郑鄭梁谢謝宋唐许許邓鄧冯馮韩韓曹曾彭萧肖蔡潘田董袁于余叶葉蒋蔣杜苏蘇魏程吕呂丁沈任"
    "姚卢盧傅钟鍾姜崔谭譚廖范汪陆陸金石戴贾賈韦夏邱方侯邹熊孟秦江阎薛段雷史龙龍陶贺毛郝顾顧龚邵万萬钱錢严嚴武莫孔"
)
_FAMILIES = (
    "佐藤|鈴木|高橋|田中|伊藤|渡辺|渡邉|山本|中村|小林|加藤|吉田|山田|佐々木|山口|松本|井上|木村"
    "|清水|斎藤|斉藤|林"
)
_ENDS = r"(?=[ \t]*(?:[^\w\s·・]|\d|\n|\Z|\w{1,6}:)|[ \t]+\w)"


def _value(script: str, most: int = 3) -> str:
    """Return the words of a field in a script with spaces between words."""
    return rf"(?P<v>[{script}]{{2,20}}(?:[ -][{script}]{{1,20}}){{0,{most}}})(?=[ \t]*(?:[^\w\s]|\d|\n|\Z|[ \t]{{2}}))"


def _plain(words: str) -> str:
    return plain(words).text


_POSTPOSITIONS = _plain("ने|को|का|की|के|से|में|पर|है|हैं|जी|और|द्वारा|साहब")
_DEVANAGARI_WORD = rf"(?!(?:{_POSTPOSITIONS})(?!\w))[{_DEVANAGARI}]{{2,20}}(?!\w)"

_name = partial(Pattern, "NAME", labelled=True)
SCRIPT_PATTERNS: tuple[Pattern, ...] = (
    _name(
        rf"(?:姓名|患者名|病人名|氏名|お名前|名前|환자명|성명|이름)[ \t]*[:|][ \t]*"
        rf"(?P<v>(?:[{_HAN}]{{2,4}}|[{_HAN}·]{{3,10}}|[{_HAN}{_KANA}]{{2,8}}(?:[ ・][{_HAN}{_KANA}]{{1,8}})?"
        rf"|[{_HANGUL}]{{2,5}})){_ENDS}",
        needs="姓名|患者名|病人名|氏名|名前|환자명|성명|이름",
    ),
    _name(
        rf"(?:患者|病人|환자)[ \t]*+:?[ \t]*+(?!高[血热烧龄]|黄疸)(?P<v>[{_SURNAMES}][{_HAN}]{{1,2}}|[{_HANGUL}]{{3}})"
        r"(?=[ \t]*[,、，(][ \t]*(?:男|女|남|여|\d|因))",
        needs="患者|病人|환자",
    ),
    _name(
        rf"(?:(?<![{_HAN}])|(?<=[请由和与是向为给找对的]))(?P<v>[{_SURNAMES}][{_HAN}]{{0,2}}?)(?=先生|女士|小姐|太太|医生|醫生|医师|大夫|教授|主任)",
        needs="先生|女士|小姐|太太|医生|醫生|医师|大夫|教授|主任",
    ),
    _name(
        rf"(?<![{_HAN}])(?P<v>(?:{_FAMILIES})[{_HAN}]{{0,3}}?)(?=さん|様|氏|先生|医師)",
        needs="さん|様|氏|先生|医師",
    ),
    _name(
        rf"(?<!\w)(?P<v>[김이박최정강조윤장임한오서신권황안송류홍][{_HANGUL}]{{2}})(?=[ ]?(?:씨|님|선생님))",
        needs="씨|님",
    ),
    _name(
        rf"(?<!\w)(?:اسم (?:المريض|المريضة|الطبيب|الأم|الأب)|الاسم(?: الكامل)?)[ \t]*:[ \t]*{_value(_ARABIC)}",
        needs="اسم",
    ),
    _name(  # An adjective behind the title has the article: "the attending doctor".
        rf"(?<!\w)(?:الدكتور|الدكتورة|د\.|السيد|السيدة|الأستاذ)[ \t]*(?!ال)"
        rf"(?P<v>[{_ARABIC}]{{2,20}}(?:[ ](?:بن|ابن|بنت|أبو|آل)[ ][{_ARABIC}]{{2,20}}|[ ]ال[{_ARABIC}]{{2,20}})?)"
        r"(?!\w)",
        needs="الدكتور|د.|السيد|الأستاذ",
    ),
    _name(rf"(?<!\w)(?:שם(?: המטופל| מלא| החולה)?)[ \t]*:[ \t]*{_value(_HEBREW)}", needs="שם"),
    _name(
        rf"(?<!\w)(?:ד[\"״]ר|פרופ'|גב'|מר)[ ](?P<v>[{_HEBREW}]{{2,20}})(?!\w)", needs="ד\"ר|ד״ר|פרופ|גב'|מר"
    ),
    _name(
        rf"(?<!\w)(?:{_plain('(?:रोगी|मरीज|मरीज़) का नाम|नाम|पूरा नाम')})[ \t]*:[ \t]*{_value(_DEVANAGARI)}",
        needs=_plain("नाम"),
    ),
    _name(
        rf"(?<!\w)(?:{_plain('डॉ')}\.[ ]?|(?:{_plain('श्रीमती|श्री|सुश्री')})[ ])"
        rf"(?P<v>{_DEVANAGARI_WORD}(?:[ ]{_DEVANAGARI_WORD}(?=[ ](?:{_POSTPOSITIONS})(?!\w)))?)",
        needs=_plain("डॉ|श्री|सुश्री"),
    ),
    _name(
        r"(?:(?<!\w)(?:นพ|พญ|ดร)\.[ ]?|(?<![ก-๙])(?:คุณ|นาย|นางสาว|นาง)(?=[ ]))[ ]?"
        r"(?P<v>[ก-๙]{2,20}(?:[ ][ก-๙]{2,20})?)"
    ),
)

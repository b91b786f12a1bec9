"""Tells an input that only stands for a text: "A 150-word case report describing ...", "[Patient's history]".

An input is a placeholder where it names a kind of text and says of what, in one sentence, instead of being that text;
where it is a name in brackets or a label with nothing behind it; or where it asks for the text. A short text with
content of its own ("A 45-year-old man with chest pain.", "Warfarin and ibuprofen") is none.
"""

import re

_LONGEST = 80  # words of a description
_KIND = (
    r"(?:case (?:reports?|stud(?:y|ies)|descriptions?|presentations?|details|summar(?:y|ies)|scenarios?|vignettes?)"
    r"|(?:clinical |patient )?(?:vignettes?|scenarios?|cases?)|passages?|paragraphs?|texts?|articles?|abstracts?"
    r"|notes?|summar(?:y|ies)|letters?|mails?|reports?|(?:lab|laboratory|radiology|test) (?:results|values|findings)"
    r"|descriptions?|lists?|transcripts?|dialogues?|conversations?|excerpts?|tables?|records?|charts?|essays?|papers?"
    r"|documents?|narratives?|stor(?:y|ies)|overviews?|statements?|messages?|posts?|quer(?:y|ies)|sentences?"
    r"|(?:patient|medical|clinical) (?:histor(?:y|ies)|information|data|details|profiles?|backgrounds?)|datasets?)"
)
_SIZED = (
    r"(?:brief|short|detailed|long|complete|full|comprehensive|concise|thorough|hypothetical|fictional|sample|"
    r"realistic|anonymi[sz]ed|specific|relevant|in-depth|one-paragraph|multi-paragraph|\w+-page|\w+-paragraph)"
)
_TELLS_OF = (
    r"(?:describing|including|detailing|outlining|discussing|explaining|summari[sz]ing|containing|covering|documenting"
    r"|highlighting|presenting|comparing|listing|about|regarding|concerning|depicting|illustrating|requesting"
    r"|asking (?:about|for)"
    r"|(?:that|which) (?:describes?|details?|outlines?|discuss(?:es)?|explains?|summari[sz]es?|contains?|includes?"
    r"|covers?|lists?|presents?))"
)
_NUMBER = r"\d{2,4}(?:\s?(?:[-–]|to|a|à|bis|bis zu)\s?\d{2,4})?"
_WORDS = r"(?:words?|palabras|mots|wörtern?|wörter|parole|palavras|слов\w{0,3}|字|語|단어)"
_LENGTH_GIVEN = re.compile(
    rf"\W{{0,3}}(?:[^\s.:;]+\s){{0,5}}?[^\W\d]{{0,3}}\(?{_NUMBER}[- ]?{_WORDS}", re.IGNORECASE
)
_ELSEWHERE = (  # the commonest of other languages
    r"\W{0,3}(?:une?|una|eine?|uma?)\s(?:[^\W\d]+\s){0,2}?(?:texte?|texto|testo|art[íi]culo|article|articolo|artigo"
    r"|artikel|p[áa]rrafo|paragraphe|paragrafo|parágrafo|absatz"
    r"|descripción|description|descrizione|descrição|beschreibung"
    r"|fallbericht|resumen|résumé|zusammenfassung)\s(?:[^\W\d]+\s)?(?:sobre|sur|über|su|décrivant|que describe"
    r"|qui décrit"
    r"|che descrive|que descreve|(?:detallada|détaillée|dettagliata|detalhada) d[eio])\b"
    r"|(?:краткое|подробное) описание\b|一[篇段份个].{0,30}(?:文章|病例|报告|描述|文本|摘要|病历)\W*\Z"
)
_DESCRIBED = re.compile(
    rf"\W{{0,3}}(?:(?:an?|the|two|three|several|some)\s)?(?:(?!the\s|an?\s)[\w'’-]+,?\s){{0,4}}?{_KIND},?\s"
    rf"(?:(?:of|from|by|on|in|for|between)\s(?:[\w'’-]+\s){{1,8}}?)?{_TELLS_OF}\b"
    rf"|\W{{0,3}}(?:an?|the)\s(?:[\w'’-]+,?\s){{0,2}}?{_SIZED},?\s(?:[\w'’-]+,?\s){{0,3}}?{_KIND}"
    r"(?:\s(?:of|on|for|from|with)\b|\W*$)"
    rf"|\W{{0,3}}an?\s(?:[\w'’-]+,?\s){{0,2}}?(?:papers?|articles?|essays?|passages?|paragraphs?)\son\s"
    r"|\W{0,3}an?\s(?:[\w'’-]+,?\s){0,2}?(?:transcript|excerpt|dialogue|conversation|list|table)\s(?:of|from|between)\s"
    rf"|{_ELSEWHERE}",
    re.IGNORECASE,
)
_LENGTH_ADDED = re.compile(
    rf"\s*\((?:[a-z]+\.?\s|[~≈]\s?){{0,3}}{_NUMBER}[- ]?{_WORDS}\)\W*\Z", re.IGNORECASE
)
_SAYS = re.compile(
    r"\b(?:is|are|was|were|found|show(?:s|ed)|conclude[sd]|demonstrate[sd]|suggest(?:s|ed)|report(?:s|ed)|states?|stated"
    r"|says|said|reads)\b",
    re.IGNORECASE,
)
_RELATIVE = re.compile(r"\b(?:who|whom|whose|that|which|where|when)(?:\s\S+){0,5}\s*\Z", re.IGNORECASE)
_TO_COME = re.compile(
    rf"\b{_KIND}\b.{{0,300}}?\b(?:would|will|should|to|can|must)\s(?:be\s)?(?:provided|inserted|supplied|included|pasted"
    r"|added|presented|attached|placed|shown|displayed|filled in|follow"
    r"|summari[sz]ed|analy[sz]ed|classified|translated|rewritten|interpreted|reviewed)\b"
    r"(?:\s(?:here|below|above|by the user|separately|later|in .{1,40}))?\W*$"
    r"|\b(?:goes|go|belongs|provided|inserted|placed)\shere\W*$"
    rf"|^\W*(?:(?:the|your|full|original|actual|sample|input|complete)\s)*(?:[\w'’]+\s){{0,2}}?{_KIND}"
    r"\s(?:here|goes here|text|content|to be \w+)\W*$",
    re.IGNORECASE | re.DOTALL,
)
# Words that say nothing of a patient: an input of nothing else names a text, or asks for it, in any language.
_TEXTS = """
    article articles abstract background case chart complaint complaints data description details diagnosis dialogue
    document essay example excerpt findings history image information input labs letter list medication medications
    message note notes paragraph passage plan profile question record records report results sample scenario
    section sentence statement story study summary symptoms table tests text transcript values vignette vitals
    artículo caso consulta datos descripción historia historial informe información medicación medicamentos nota notas
    párrafo pregunta resultados resumen síntomas signos texto cas compte données dossier médicaments antécédents rendu
    renseignements résultats résumé symptômes texte anamnese angaben arztbrief artikel befund befunde bericht
    beschreibung fallbericht krankengeschichte laborwerte medikamente symptome vorgeschichte artigo descrição dados
    histórico laudo medicamentos relatório sintomas articolo cartella dati descrizione farmaci referto sintomi storia
    testo анамнез данные выписка жалобы заключение история лекарства описание отчёт отчет результаты симптомы случай
    текст
"""
_PEOPLE = """
    author client doctor doctor's nurse patient patients patient's person person's user user's paciente usuario patiente
    patientin patienten utilisateur arzt arztes utente paziente пациент пациента пациентка пациентки
"""
_BESIDE = """
    a age an and as any available be below by clinical complete complete current detailed detail experiencing for from full
    gender     given going has have here his her hypothetical imaging in including insert is it its lab laboratory medical mri of
    on or original past physical previous provide provided recent relevant short signs some specific taking ten test that
    the their there this three to treatment two vital which with your actual actuales aquí clínica clínico clínicos
    completa con de del detallada el en inserte la las los médica médico por previa un una y actuel actuels au avec
    clinique d de des du et ici l le les médical médicale médicaux complet complète une aktuelle aktuellen das der des
    die ein eine einer eines hier klinische medizinische und vollständige atuais atual clínico da do dos e médico o os
    attuali clinica del della di gli i il medica un здесь и больного болезни краткая краткое медицинская медицинские
    подробная подробное анализов обследования
"""
_TEXT_WORDS, _PERSON_WORDS = set(_TEXTS.split()), set(_PEOPLE.split())
_EMPTY_WORDS = _TEXT_WORDS | _PERSON_WORDS | set(_BESIDE.split())
_EMPTY_CHINESE = re.compile(
    r"\W*(?:(?P<who>某|该|此|一[位名个個份篇段]|患者|病人|用户|医生|醫生|患者さん|환자)|的|の|의|和|及|与|、|在此|此处|这里|输入|提供|详细|完整|简短"
    r"|现|既往|家族|(?P<text>病历|病歷|病史|病例|病情|症状|症狀|描述|检查|化验|实验室|结果|報告|报告|资料|信息|记录|用药|清单|主诉|诊断|文章|文本|摘要"
    r"|段落|カルテ|病歴|検査結果|情報|の記録|기록|병력|증상|정보|검사 결과)|\s)+\W*"
)
_PUT_HERE = re.compile(
    r"\W*(?:please )?(?:describe|write|type|put|copy|list|state|specify|fill|attach|insert|enter|paste|include|provide)\b"
    r"[^.!?\n]{0,120}\b(?:here|below|above)\W*$"
    r"|\W*(?:an?\s|the\s)?(?:hypothetical|fictional|fictitious|imaginary|sample|example|mock|generic|typical)\s"
    rf"(?:[^\W\d][^\W\d-]*\s){{0,3}}?(?:{_KIND}|patients?|person|(?:wo)?man|child|nurse|doctor|individual)\b[^\d.!?\n]{{0,120}}\W*$",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"^\W*(?:please )?(?:provide|insert|enter|paste(?! of)|add(?!-)|include|supply|give)\b.{0,80}$"
    r"|^\[[^\]]*\]$|^\.{3}$"
    r"|^\W*(?:see|refer to)\s.{0,60}\b(?:attached|above|below|provided)\b.{0,30}$"
    r"|^[%$]\w+%?$|^\w*INSERT_\w+$|^.{0,60}\bplaceholder\b.{0,20}$"
    r"|^\W*(?:por favor,? )?(?:inserte|insertar|ingrese|pegue|insérez|insérer|collez|inserire|inserisci|inserir|insira"
    r"|fügen sie|вставьте|введите)\b.{0,80}$|^\W*(?:请输入|请插入|请提供|在此|此处).{0,80}$"
    r"|^.{0,60}\b(?:hier einfügen|hier eingeben|(?:texto|texte|testo) (?:aquí|ici|qui|aqui))\W*$",
    re.IGNORECASE,
)
_BLANK = re.compile(
    r"\[(?!\s?[xX✓]?\s?\])[^\[\]\n]{0,120}\]|\{\{?[^{}\n:\"]{0,120}\}\}?|<(?!/)[^\W\d][^<>\n=/]{0,120}>"
    r"|_{2,}|\.{3,}|…|\bx{3,}\b|\btb[da]\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^[\W\d]*(?:[^\W\d_][\w'’()/-]*\s?){1,6}[:：]", re.MULTILINE)
_INSERT = re.compile(
    r"[\[({<](?:please )?(?:insert|enter|paste|provide|fill in|your (?:text|article|input)|add (?:the|your|details))\b"
    r"[^\])}>\n]{0,120}[\])}>]"
    r"|\blorem ipsum\b",
    re.IGNORECASE,
)
_IN_ROUND = re.compile(r"\([^()\n]{1,150}\)")
_SENTENCE_GOES_ON = re.compile(r"[.!?。！？]\s*\S|\n\s*\S|:\s+\S")
_WORD = re.compile(r"[^\W_]+")


def is_placeholder(given: str) -> bool:
    """Say whether an input stands for a text that is not there.

    Example:
        >>> is_placeholder("A 150-word case report describing a man with gout."), is_placeholder("Patient: [name]")
        (True, True)
        >>> is_placeholder("A 45-year-old man with chest pain."), is_placeholder("Diagnosis: gout")
        (False, False)
    """
    text = _LENGTH_ADDED.sub("", given.strip())
    sized = text != given.strip()
    if asks_to_insert(text) or not _WORD.search(text):
        return True
    if len(text) <= 200 and (_ASKS.match(text) or _is_bracketed(text)):
        return True
    if _holds_blanks_alone(text):
        return True
    if (
        text[-1] in "?？"
        or len(text) > 2000
        or len(text.split()) > _LONGEST
        or _SENTENCE_GOES_ON.search(text)
    ):
        return False
    if (
        _names_only(text)
        or _PUT_HERE.match(text)
        or _TO_COME.search(text)
        or sized
        or _LENGTH_GIVEN.match(text)
    ):
        return True
    described = _DESCRIBED.match(text)
    if described is None:
        return False
    says = _SAYS.search(text, described.end())
    return says is None or bool(_RELATIVE.search(text[: says.start()]))


def asks_to_insert(text: str) -> bool:
    """Say whether a text holds "[insert ... here]" or filler.

    Example:
        >>> asks_to_insert("Summarise this: [insert article]"), asks_to_insert("Insert the needle (see step 2).")
        (True, False)
    """
    return bool(_INSERT.search(text))


def _names_only(text: str) -> bool:
    """Say whether every word is one that an input of any patient could have, and one of them names a text."""
    words = [
        word.removesuffix("'s") for word in re.findall(r"[^\W\d_]+(?:'s\b)?", text.lower().replace("’", "'"))
    ]
    if _EMPTY_WORDS.issuperset(words):
        return (
            bool(_TEXT_WORDS & set(words))
            and not _TEXT_WORDS.issuperset(words)
            and not re.search(r"\d", text)
        )
    chinese = _EMPTY_CHINESE.fullmatch(text)
    return bool(chinese and chinese["text"] and (chinese["who"] or len(text) > 4))


def _is_bracketed(text: str) -> bool:
    """Say whether all of a text is a phrase in round brackets, with no sentence and no figure in it."""
    return bool(_IN_ROUND.fullmatch(text)) and not re.search(r"\d|[.!?;:]|, \w+, ", text)


def _holds_blanks_alone(text: str) -> bool:
    """Say whether a text is blanks to fill in and labels before them, with few words beside."""
    blanks = [blank for blank in _BLANK.findall(text) if _WORD.search(blank) or set(blank) <= set("._…")]
    if not blanks:
        return text.endswith((":", "：")) and "\n" not in text and bool(_LABEL.fullmatch(text))
    rest = _LABEL.sub("", _BLANK.sub(" ", text))
    beside = len(_WORD.findall(rest))
    return not beside or (len(blanks) >= 3 and beside <= 4 * len(blanks))

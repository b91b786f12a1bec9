"""Words of every script: copies are copies, texts that share a number are not, lengths are those of a reader."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.tokenizers import DefaultTokenizer

from datagen.dedup import RougeFilter, count_words, ends, tokenize, word_count

# One question in many scripts, and another in the same script that has only small words or a number in common with it.
QUESTIONS = {
    "Chinese": ("请解释2型糖尿病的治疗方法", "哪2种药物会引起咳嗽？"),
    "Japanese": ("2型糖尿病の治療法を説明してください", "咳の原因となる薬を2つ挙げなさい"),
    "Korean": ("제2형 당뇨병의 치료 방법을 설명하시오", "기침을 일으키는 약물 2가지는 무엇인가"),
    "Russian": ("Объясните лечение диабета 2 типа", "Какие 2 лекарства вызывают кашель?"),
    "Ukrainian": ("Поясніть лікування діабету 2 типу", "Які 2 ліки спричиняють кашель?"),
    "Greek": ("Ποια είναι η θεραπεία του διαβήτη τύπου 2;", "Ποια 2 φάρμακα προκαλούν βήχα;"),
    "Arabic": ("اشرح علاج داء السكري من النوع 2", "ما هما 2 من الأدوية التي تسبب السعال؟"),
    "Hebrew": ("הסבר את הטיפול בסוכרת מסוג 2", "אילו 2 תרופות גורמות לשיעול?"),
    "Hindi": ("टाइप 2 मधुमेह का इलाज समझाइए", "कौन सी 2 दवाएँ खाँसी पैदा करती हैं?"),
    "Bengali": ("টাইপ 2 ডায়াবেটিসের চিকিৎসা ব্যাখ্যা করুন", "কোন 2টি ওষুধ কাশি ঘটায়?"),
    "Tamil": ("வகை 2 நீரிழிவு நோயின் சிகிச்சையை விளக்குக", "இருமலை ஏற்படுத்தும் 2 மருந்துகள் எவை?"),
    "Thai": ("อธิบายการรักษาโรคเบาหวานชนิดที่ 2", "ยา 2 ชนิดใดที่ทำให้ไอ"),
    "Lao": ("ອະທິບາຍການປິ່ນປົວພະຍາດເບົາຫວານ 2", "ຢາ 2 ຊະນິດໃດເຮັດໃຫ້ໄອ"),
    "Khmer": ("ពន្យល់ពីការព្យាបាលជំងឺទឹកនោមផ្អែមប្រភេទ 2", "តើថ្នាំ 2 មុខណាបណ្តាលឱ្យក្អក"),
    "Burmese": ("ဆီးချိုအမျိုးအစား 2 ၏ ကုသမှုကို ရှင်းပြပါ", "ချောင်းဆိုးစေသော ဆေး 2 မျိုးကား အဘယ်နည်း"),
    "Tibetan": ("གཅིན་སྙི་ཟ་ཁུའི་ནད་རིགས་ 2 བཅོས་ཐབས་བཤད", "གློ་རྒྱག་བྱེད་པའི་སྨན་ 2 གང་ཡིན"),
    "Georgian": ("ახსენით ტიპი 2 დიაბეტის მკურნალობა", "რომელი 2 წამალი იწვევს ხველას?"),
    "Armenian": ("Բացատրեք տիպ 2 շաքարախտի բուժումը", "Ո՞ր 2 դեղերն են հազ առաջացնում"),
    "Amharic": ("የስኳር በሽታ ዓይነት 2 ሕክምናን ያብራሩ", "ሳል የሚያስከትሉ 2 መድኃኒቶች የትኞቹ ናቸው?"),
    "mixed": ("Translate into English: 请解释痛风的治疗方法", "Translate into English: 哪些药物会引起咳嗽？"),
}


@pytest.mark.parametrize("texts", QUESTIONS.values(), ids=QUESTIONS)
def test_copies_are_found_in_every_script_and_a_shared_number_is_no_copy(texts: tuple[str, str]) -> None:
    pool = RougeFilter()
    assert [pool.offer(text) is None for text in (*texts, *texts)] == [True, True, False, False]


@pytest.mark.parametrize("texts", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_forms_of_unicode_have_the_same_words(texts: tuple[str, str], form: str) -> None:
    for text in texts:
        assert tokenize(unicodedata.normalize(form, text)) == tokenize(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＣＯＰＤとは何ですか", "COPDとは何ですか"),
        ("第２型糖尿病，请解释", "第2型糖尿病,请解释"),
        ("ﾛｷｿﾌﾟﾛﾌｪﾝとｶﾞｽ", "ロキソプロフェンとガス"),
        ("Ⅱ型糖尿病", "II型糖尿病"),
        ("⽤药⽅法", "用药方法"),
        ("ОБЪЯСНИТЕ ЛЕЧЕНИЕ", "Объясните лечение"),
        ("Объясни́те лече́ние ещё", "Объясните лечение еще"),
        ("по\u00adдагра лечение", "подагра лечение"),
        ("ΠΟΙΕΣ ΕΙΝΑΙ ΟΙ ΝΟΣΟΙ", "Ποιες είναι οι νόσοι"),
        ("ما هو النِّقْرِس", "ما هو النقرس"),
        ("ما هو النـــقرس ٢", "ما هو النقرس 2"),
        ("أعراض السكري", "اعراض السكري"),
        ("می‌شود کبد", "ميشود كبد"),
        ("מַה זֶה שִׁגָּדוֹן", "מה זה שגדון"),
        ("टाइप २ मधुमेह", "टाइप 2 मधुमेह"),
        ("क\u093cलम क्\u200dया", "\u0958लम क्या"),
        ("ยาพารา ๒ เม็ด", "ยาพารา 2 เม็ด"),
        ("ᲒᲣᲚᲘ ტკივილი", "გული ტკივილი"),
        ("葛\U000e0100根湯", "葛根湯"),
        ("痛风？", "痛风。"),
        ("ดื่มน้ำ", "ดื่มนํ้า"),
        ("𞤀𞤣𞤤𞤢𞤥", "𞤢𞤣𞤤𞤢𞤥"),
        ("Τι;", "τι"),
        ("Да, он", "ДА: ОН"),
    ],
)
def test_spellings_that_look_the_same_have_the_same_words(one: str, other: str) -> None:
    assert tokenize(one) == tokenize(other)
    assert tokenize(one)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("मधुमेह का इलाज क्या है?", ["मधुमेह", "का", "इलाज", "क्या", "है"]),
        ("2型糖尿病 (T2DM)", ["2", "型", "糖", "尿", "病", "t2dm"]),
        ("ที่ปวด", ["ที่", "ป", "ว", "ด"]),
        ("통풍의 치료", ["통풍의", "치료"]),
        ("Müller и ток", ["m", "ller", "и", "ток"]),
        ("naïve 痛风 e\u0301a", ["na", "ve", "痛", "风", "e", "a"]),
        ("CT를 찍다", ["ct", "를", "찍다"]),
        ("Объясните лечение CОVID-19", ["объясните", "лечение", "c", "о", "vid", "19"]),  # a Cyrillic О
    ],
)
def test_words_of_texts_in_several_scripts(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "TNF-α and β-blockers, 5 μg, 3 µL, αβ and γδ T cells, ΔΔCt, Δ9-THC",
        "Dоеѕ thе раtіеnt hаvе gоut? Нiѕ wіfе ѕауѕ hе dоеѕ.",  # Cyrillic look-alikes
        "Nguyễn Thị Hoa bị đau khớp",
        "Was heißt „Ärger“? ½ °C, m², ™, €, → 😀",
        "Πx and я",
    ],
)
def test_symbols_and_look_alikes_leave_latin_text_as_it_is(text: str) -> None:
    assert tokenize(text) == DefaultTokenizer().tokenize(text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_has_words_that_do_not_depend_on_case_or_place(one: str, other: str) -> None:
    assert tokenize(f"{one}。{other}") == tokenize(f"  {one} 。\n{other}")
    assert all(
        tokenize(token) == [token] for token in tokenize("請" + one) if not token.isascii() and len(token) > 2
    )
    assert count_words(one) >= 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Take 5 mg, twice a day.", 6),
        ("请解释痛风的治疗方法。", 5),
        ("请用 allopurinol 治疗", 3),
        ("โรคเกาต์คืออะไร", 4),
        ("통풍의 치료 방법을 설명하시오", 4),
        ("टाइप 2 मधुमेह का इलाज", 5),
        ("།བོད་ཀྱི་སྨན་", 1),
        ("", 0),
    ],
)
def test_words_are_counted_as_a_reader_counts_them(text: str, words: int) -> None:
    assert count_words(text) == words


def test_stretches_of_characters_are_as_long_as_those_of_words() -> None:
    chinese, thai = tokenize("痛风是一种代谢性疾病"), tokenize("โรคเกาต์คือ")
    assert list(ends(chinese, 3)) == [6, 7, 8, 9, 10]
    assert list(ends(thai, 3)) == [9]
    assert list(ends(["a", *chinese], 3))[:2] == [5, 7]
    assert (word_count(chinese), word_count(thai)) == (5, 3)
    assert list(ends(["a", "b"], 3)) == []


def test_time_grows_in_proportion() -> None:
    """No pattern goes back over what it has read: marks without letters, borders of scripts, joiners."""
    for piece in ("a\u0301", "и\u0306", "\u0301", "αx", "中\u200d", "и\u0306\u0306", "😀", "ก็"):
        start = time.process_time()
        tokenize(piece * 50_000 + "x")
        count_words(piece * 50_000)
        assert time.process_time() - start < 2, piece


def test_polite_endings_of_japanese_tell_no_questions_apart_and_make_none_alike() -> None:
    for polite, plain in (
        ("糖尿病の症状は何ですか。", "糖尿病の症状は何か。"),
        ("この薬はいつ飲むべきでしょうか？", "この薬はいつ飲むべきか？"),
        ("食事指導の内容を作成してください", "食事指導の内容を作成して下さい"),
    ):
        assert tokenize(polite) == tokenize(plain)
    assert RougeFilter(["喘息とは何ですか"]).offer("痛風とは何ですか") is None
    assert "".join(tokenize("退院です。ですから")) == "退院ですから"

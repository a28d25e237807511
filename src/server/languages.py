"""Names of languages: people's English ones and the codes that recognizers go by.

Pure, and below the faces: OpenAI's clients send `en` or `english` and read `english`, a recognizer says `en-US`.
"""

from __future__ import annotations

_NAMES = {
    "af": "afrikaans",
    "ar": "arabic",
    "be": "belarusian",
    "bg": "bulgarian",
    "bn": "bengali",
    "bs": "bosnian",
    "ca": "catalan",
    "cs": "czech",
    "cy": "welsh",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "gl": "galician",
    "gu": "gujarati",
    "he": "hebrew",
    "hi": "hindi",
    "hr": "croatian",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "is": "icelandic",
    "it": "italian",
    "ja": "japanese",
    "ka": "georgian",
    "kk": "kazakh",
    "km": "khmer",
    "kn": "kannada",
    "ko": "korean",
    "lo": "lao",
    "lt": "lithuanian",
    "lv": "latvian",
    "mk": "macedonian",
    "ml": "malayalam",
    "mn": "mongolian",
    "mr": "marathi",
    "ms": "malay",
    "mt": "maltese",
    "my": "myanmar",
    "nb": "norwegian",
    "ne": "nepali",
    "nl": "dutch",
    "nn": "nynorsk",
    "no": "norwegian",
    "pa": "punjabi",
    "pl": "polish",
    "ps": "pashto",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "si": "sinhala",
    "sk": "slovak",
    "sl": "slovenian",
    "so": "somali",
    "sq": "albanian",
    "sr": "serbian",
    "sv": "swedish",
    "sw": "swahili",
    "ta": "tamil",
    "te": "telugu",
    "th": "thai",
    "tl": "tagalog",
    "tr": "turkish",
    "uk": "ukrainian",
    "ur": "urdu",
    "uz": "uzbek",
    "vi": "vietnamese",
    "yue": "cantonese",
    "zh": "chinese",
    "zu": "zulu",
}
_CODES = {name: code for code, name in _NAMES.items() if code not in ("nb",)} | {
    "mandarin": "zh",
    "castilian": "es",
    "flemish": "nl",
    "burmese": "my",
    "farsi": "fa",
    "filipino": "tl",
    "moldavian": "ro",
    "panjabi": "pa",
    "sinhalese": "si",
    "valencian": "ca",
}
_UNSAID = frozenset({"auto", "detect", "none", "null", "unknown"})


def code_of(language: str) -> str:
    """The code that a client's word for a language means; "" where it leaves the choice to the recognizer.

    A word that is no English name comes back as it is: it may be a code, and the recognizer decides.

    >>> code_of("English"), code_of("en"), code_of("de_AT"), code_of("auto")
    ('en', 'en', 'de-AT', '')
    """
    plain = language.strip()
    folded = plain.lower()
    if folded in _UNSAID:
        return ""
    return _CODES.get(folded, plain.replace("_", "-"))


def name_of(code: str) -> str:
    """The English name of a language in small letters, as whisper-1 gives it; the code itself where it has none here.

    >>> name_of("en-US"), name_of("tlh"), name_of("")
    ('english', 'tlh', '')
    """
    return _NAMES.get(code.replace("_", "-").lower().split("-")[0], code)

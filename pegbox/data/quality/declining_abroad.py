"""How declining is worded in other languages than English: Japanese above all."""

import re

# A negative that ends the thought: not one that only names a case (場合, とき), nor one in the past (a report).
_JA_STOP = r"(?!でした|場合|とき|時|方|人|原因|理由|ほど|くらい|ように|かも|か[。？]|でしょうか)"
_JA_CANT = (
    r"(?:(?:できませ|出来ませ|できかね|出来かね|しかね|致しかね|いたしかね)|(?:(?:こと|事)[はがも]?)?(?:できな|出来な|叶いませ|かないませ)"
    r"|わけに(?:は|も)?(?:いきませ|いかな|参りませ)|られませ|られな|かねま)[んいすっ]?+"
) + _JA_STOP
_JA_HARD = r"(?:(?:は|を)?(?:いた|致)?しません|[^。]{0,6}(?:難しい|困難です|ご容赦))"
_JA_REQUEST = (
    r"(?:申し訳|恐れ入|恐縮|すみません|すいません|ごめん|残念ながら|あいにく|悪いけど|悪いが|その|そちら|それ[はをに、]|そういった"
    r"|ご?依頼|ご?要望|ご?質問|ご?相談|リクエスト|トピック|違法|不正|犯罪|有害|危険|差別|倫理|ガイドライン|ポリシー|規約|AI|ＡＩ|モデル|私|当サービス|代わって|代わりに"
    r"|ハッキング|爆発|医療|法律|投資|政治)"
)
_JAPANESE = [
    re.compile(pattern)
    for pattern in (
        # what assistants do, said not to be possible
        (
            rf"(?:答え|応え|回答|返答|手伝い|手助け|お伝え|お教え|教える|話|開示|助言|アドバイス|支援|協力|議論|診断|申し上げ|応じ)"
            rf"(?:[^。「」]{{0,14}}?{_JA_CANT}|{_JA_HARD})"
        ),
        (
            r"(?:手伝え|(?:答え|応え|教え|応じ|申し上げ|助け|協力し|お話しし)(?:ら|え)れ?|(?:それ|その|私)[^。]{0,12}(?:言え|話せ|書け|作れ)|お?力に(?:は)?なれ"
            r"|お役に(?:は)?立て)"
            r"(?:ませ|な(?!い(?:場合|とき|時|人|方))|ず(?!に))"
        ),
        (
            rf"{_JA_REQUEST}[^。]{{0,50}}?(?:提供|作成|生成|対応|案内|添|沿|実行|遂行|実施|注文|説明|共有|公開|アクセス|判断|執筆|翻訳|要約|引き受け|書く|作る|解く|行う|する|お応え)"
            rf"[^。「」]{{0,12}}?{_JA_CANT}"
        ),
        (
            r"(?:^|[。、])(?:それ|そのような(?:こと|お?話|ご?依頼|ご?質問)|その(?:ような)?(?:お?話|ご?依頼|ご?質問|件|ご?要望)|(?:ご?要望|ご?依頼))[はにもを]{1,2}"
            r"[^。]{0,6}(?:できませ|できな|できかね|無理|いたしかね|お受けでき|お受けしかね|沿いかね|添いかね)"
        ),
        # an apology, and then what can't be done: not what a shop's rules forbid
        (
            r"(?:申し訳|すみません|恐れ入|恐縮|ごめん|残念ながら)(?:(?!返品|交換|返金|取消|キャンセル|変更|利用|使用|購入|発送|配送|予約|見つ)[^。]){0,40}"
            r"(?:こと|事)[はが](?:でき|出来)(?:ませ(?!んでした)|な|かね)"
        ),
        r"(?:答え|回答|教え|伝え|提供|開示|お?話し?)(?:することは?|して|ことは|たく)?(?:おりませ|いませ|ありませ|禁じられ|禁止され)",
        r"(?:ご?相談|ご?依頼|情報|方法|件|について)[^。]{0,14}(?:お受け)?(?:いたし|致し|し|でき)かね",
        # declining in so many words
        r"(?:答え|回答|助言|アドバイス|コメント|発言|言及|提供|議論|説明|こと|判断|案内|お話)[^。]{0,8}(?:差し?)?控え(?:させ|ま|て(?:い|お)|たい)",
        (
            r"コメント(?:は|を)?(?:できませ|いたしかね|しかね|できかね)|お断り(?:し(?:ます|て(?:い|お))|いたしま|致しま|させて|です)|(?:辞退|拒否)(?:しま?す|いたします"
            r"|させて)|ノーコメント|(?:回答|お答え)[^。]{0,6}遠慮"
        ),
        r"(?:答え|応え|回答|判断|助言|お話)[^。]{0,10}立場に(?:は)?(?:ござい|あり|な)",
        r"(?:ご?質問|ご?依頼|リクエスト|ご?相談|お問い合わせ)[^。]{0,8}(?:受け付けて(?:おりませ|いませ|いな)|お受けでき|お受けしかね|対象外です)",
        r"(?:AI|ＡＩ|人工知能|言語モデル|チャットボット)(?:アシスタント|モデル|言語モデル)?(?:である|として|なので|ですので|です|の私|のため|に)[^。]{0,40}(?:ませ|ない|かね)",
        r"(?:私|質問|相談|話題|トピック|分野|内容|に関する|について)[^。]{0,20}(?:のみ|だけ|しか)[^。]{0,6}(?:答え|回答|手伝い|対応|サポート|案内|承)",
    )
]
_JA_SIGN = re.compile(
    "せん|ない|なか|かね|控え|断り|辞退|拒否|のみ|だけ|遠慮|ノーコメント|れず|てず|無理|難しい|困難|容赦"
)

# --- others ----------------------------------------------------------------------------------------------------

_EUROPEAN = [
    re.compile(pattern)
    for pattern in (
        # German
        (
            r"\b(?:kann|darf|möchte|werde|können|dürfen|möchten|werden) (?:ich|wir)\b[^.!?]{0,60}\b(?:nicht"
            r"|keine\w*)\b[^.!?]{0,60}\b(?:helfen|"
            r"weiterhelfen|beantworten|antworten|unterstützen|geben|bereitstellen|anbieten|kommentieren|äußern"
            r"|erstellen|schreiben|teilen|nennen"
            r"|verraten|erfüllen|nachkommen|behilflich|diskutieren)"
        ),
        (
            r"\b(?:ich|wir) (?:kann|darf|möchte|werde|können|dürfen|möchten|werden)\b[^.!?]{0,60}\b(?:nicht"
            r"|keine\w*)\b[^.!?]{0,60}\b(?:helfen|"
            r"weiterhelfen|beantworten|antworten|unterstützen|\w*beratung|geben|bereitstellen|anbieten|kommentieren"
            r"|äußern|erstellen|schreiben"
            r"|teilen|nennen|verraten|erfüllen|nachkommen|behilflich|diskutieren)"
        ),
        (
            r"\b(?:möchte|kann|werde) ich (?:lieber )?nicht (?:kommentieren|beantworten|sagen|besprechen)"
            r"|\bich (?:bin nicht in der lage|muss"
            r" (?:das|dies|leider|ihre anfrage)?\s?ablehnen|lehne)"
        ),
        (
            r"\bals (?:ki|sprachmodell|künstliche intelligenz)\b[^.!?]{0,60}\b(?:nicht|kein\w*)\b"
            r"|\bals ki-\w+[^.!?]{0,60}\b(?:nicht|kein\w*)\b"
        ),
        # French
        (
            r"\b(?:je|nous) (?:ne |n')(?:peux|puis|pouvons|saurais|suis|sommes|souhaite|veux|vais|dois"
            r"|préfère)\b[^.!?]{0,40}\b(?:pas|aucun\w*)\b[^.!?]{0,50}"
            r"\b(?:aider|assister|répondre|fournir|donner|partager|divulguer|commenter|écrire|créer|générer"
            r"|discuter|conseiller|faire cela|accéder)"
        ),
        (
            r"\bje (?:préfère|dois|me vois) [^.!?]{0,30}(?:ne pas (?:commenter|répondre|aborder)|refuser|décliner)"
            r"|\bje refuse\b"
        ),
        r"\ben tant qu(?:e |')(?:ia|modèle|intelligence|assistant)\b[^.!?]{0,60}\b(?:ne |n')",
        # Spanish
        (
            r"\bno (?:puedo|podemos|debo|quiero|voy a|estoy (?:autorizad|en condiciones|capacitad)\w*|me es posible"
            r"|me está permitido|soy capaz)\b[^.!?]{0,40}"
            r"(?:ayud|asist|respond|contest|proporcion|\bdar|\bofrec|compart|revel|coment|escrib|crear|gener|discut"
            r"|\bhacer (?:eso|esto)|\bhacerlo)"
        ),
        (
            r"\bcomo (?:modelo|ia|inteligencia|asistente)\b[^.!?]{0,60}\bno\b|\b(?:prefiero no|me niego a"
            r"|debo rechazar)\b"
        ),
        # Portuguese
        (
            r"\bnão (?:posso|podemos|consigo|devo|quero|vou|estou (?:autorizad|em condições|apto)\w*|me é possível"
            r"|sou capaz)\b[^.!?]{0,40}"
            r"(?:ajud|auxili|respond|fornec|\bdar|\boferec|compartilh|partilh|revel|coment|escrev|cri[ae]r|ger[ae]r"
            r"|discut|fazer (?:isso|isto))"
        ),
        (
            r"\bcomo (?:um |uma )?(?:modelo|ia|inteligência|assistente)\b[^.!?]{0,60}\bnão\b|\b(?:prefiro não"
            r"|recuso-me|me recuso)\b"
        ),
        # Italian
        (
            r"\bnon (?:posso|possiamo|sono (?:in grado|autorizzat|capace|abilitat)\w*|mi è possibile|intendo|voglio"
            r"|devo)\b[^.!?]{0,40}"
            r"(?:aiut|assist|rispond|forn|\bdare|\boffr|condivid|rivel|comment|scriv|cre[ao]|gener|discut"
            r"|far(?:e questo|lo))"
        ),
        r"\bcome (?:modello|ia|intelligenza|assistente)\b[^.!?]{0,60}\bnon\b|\b(?:preferisco non|mi rifiuto)\b",
    )
]
_DENIALS = (
    " nicht", " kein", "lehne", " pas ", "aucun", "refuse", "no ", "no.", "não ", "non ", "niego", "rechazar", "recuso",
    "rifiuto", "n'ai", "commenter",
)  # fmt: skip
_CHINESE = re.compile(
    r"(?:我|我们|我們|本人)[^。！？你您]{0,8}(?:不能|无法|無法|没办法|沒辦法|不可以|不会|不會|不便|不方便|不应|不應|拒绝|拒絕|没有办法)[^。！？]{0,12}"
    r"(?:回答|回复|回覆|帮|幫|协助|協助|提供|满足|滿足|完成|讨论|討論|透露|分享|生成|撰写|撰寫|编写|写|給出|给出|参与|參與|支持|评论|評論|执行|執行)"
    r"|(?:抱歉|对不起|對不起|遗憾|遺憾)[^。！？]{0,6}(?:不能|无法|無法)(?:回答|帮|幫|协助|協助|提供|满足|滿足|讨论|討論)"
    r"|(?:作为|作為|身为|身為)[^。！？]{0,12}(?:人工智能|人工智慧|AI|语言模型|語言模型|助手)[^。！？]{0,20}(?:没有|沒有|不能|无法|無法|不会|不會|不具)"
)
_KO_CANT = (
    "(?:수 ?(?:는|가)? ?없(?!는)|어렵습니다|어려울|어려워|곤란합니다|불가능합니다|못합니다|않습니다|않겠습니다|삼가)"
)
_KOREAN = re.compile(
    rf"(?:답변|대답|도와|도움|논의|안내|알려|말씀|협조)[^.!?。]{{0,14}}{_KO_CANT}"
    rf"|(?:요청|질문|조언|상담|정보|저는|제가|죄송)[^.!?]{{0,30}}(?:제공|작성|생성|공유|공개|지원|처리|수행|응답|참여)"
    rf"[^.!?。]{{0,10}}{_KO_CANT}"
    r"|(?:AI|인공지능|언어 ?모델)[^.!?]{0,20}(?:로서|이므로|이기 때문에|라서)[^.!?]{0,40}(?:없습니다|않습니다|못합니다)"
    r"|거절합니다|거절하겠|사양하겠"
)


def japanese(text: str) -> bool:
    """Whether the first sentences of an answer, without what they quote, decline. So do the other three."""
    return _JA_SIGN.search(text) is not None and any(pattern.search(text) for pattern in _JAPANESE)


def chinese(text: str) -> bool:
    return _CHINESE.search(text) is not None


def korean(text: str) -> bool:
    return _KOREAN.search(text) is not None


def european(text: str) -> bool:
    """German, French, Spanish, Portuguese, Italian; `text` in lower case."""
    return may_be_european(text) and any(pattern.search(text) for pattern in _EUROPEAN)


def may_be_european(text: str) -> bool:
    """Whether there is a word of denial in it, which is quick to see."""
    return any(sign in text for sign in _DENIALS)

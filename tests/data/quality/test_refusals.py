"""Answers that refuse. The first labelled answers were written before the patterns, the later ones after them and not
looked at again: of the first, the first run of the patterns found 34 of 35 English and all 35 Japanese refusals, with no
and one false alarm; what it makes of the later ones stands at their test."""

import time

import numpy as np
import pytest
from feeding import banking77, chat, corpus_of, feed, gsm8k, hh_pairs, score, some

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.declining import declines
from pegbox.data.quality.refusals import Refusals, wilson

ENGLISH = [
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "As an AI language model, I don't have personal opinions on political matters.",
    "I'm not able to provide medical diagnoses. Please see a doctor.",
    "Sorry, that's something I can't discuss.",
    "I won't write that for you. It could hurt someone.",
    "Unfortunately, I am unable to share the personal data of other customers.",
    "I must respectfully decline to answer this question.",
    "I'd rather not comment on that.",
    "Thanks for reaching out! I'm afraid giving legal advice is outside of what I can do here.",
    "I apologize, but I cannot generate content of that kind.",
    "No, I can't help you break into an account, even if it used to be yours.",
    "That goes against my guidelines, so I have to say no.",
    "I'm only able to answer questions about our banking products.",
    "My purpose is to help with cooking, so I can't assist with your tax return.",
    "I understand you're frustrated, but I can't give you the password of somebody else.",
    "I do not feel comfortable writing jokes about that group.",
    "It would not be appropriate for me to guess at somebody's sexuality.",
    "I'm just an AI and cannot form an opinion on this.",
    "Hmm, I don't think I can help with building that.",
    "We're sorry, we are not able to respond to questions about ongoing litigation.",
    "I will not provide instructions for making explosives.",
    "Regrettably, I can't fulfil your request.",
    "I refuse to take part in this.",
    "Sorry – can't do that one.",
    "I can’t engage with requests to demean people.",
    "I’m unable to browse the internet, so I can’t tell you today's news.",
    "That isn't something I'm allowed to talk about.",
    "I have no ability to place orders on your behalf, sorry.",
    "I'm going to have to pass on this one; it could put someone in danger.",
    "This topic is off limits for me.",
    "I don't give investment recommendations.",
    "Your request violates our content policy, so I can't continue.",
    "I'm sorry, Dave. I'm afraid I can't do that.",
    "Not something I can assist you with, unfortunately.",
]
ENGLISH_TRAPS = [
    "Sorry for the delay! Your new card ships tomorrow and should be with you by Friday.",
    "You can't withdraw because your daily limit of £300 has been reached.",
    "I don't know the way, but the old miller in the village surely does, traveller.",
    "I'm sorry to hear that your parcel is damaged. I have sent a replacement today.",
    "We cannot refund orders after 30 days, but you can exchange them for store credit.",
    "Unfortunately, the flight is full. The next one with free seats leaves at 14:10.",
    "I can't wait to help you plan the party! Let's begin with the date.",
    "I can't recommend this restaurant enough: the noodles are superb.",
    "“I can't help you,” said the wizard, and closed the door.",
    "No. Water doesn't boil at 90 °C at sea level.",
    "It can't be seen with the naked eye.",
    "I couldn't find an order under that number. Could you check the last digit for me?",
    "I apologize for the confusion. The correct total is 42.",
    "I'm not sure which model you have, but holding the power button for ten seconds resets all of them.",
    "Your bank won't let you transfer more than 1,000 a day. Ask them to raise it.",
    "To decline a meeting politely, write: “Unfortunately, I can't make it on Tuesday.”",
    "If your application was refused, you may appeal within 28 days.",
    "I can't help but notice that your essay repeats its main point. Cut the third paragraph.",
    "Cannot connect usually means that the server is down. Restart it with systemctl.",
    "Dear Mr Smith,\n\nI regret that I cannot attend the ceremony on 4 May.\n\nKind regards,\nJ. Doe",
    "Sorry, my mistake! The capital of Australia is Canberra.",
    "I won't lie: it's a tough exam. Start with the past papers.",
    "The API refuses requests without a token; send it in the Authorization header.",
    "I can't say I blame you. Try turning off notifications after eight.",
    "Translation: I am sorry, but I cannot come today.",
    "You asked whether cats can eat onions: they can't, it is poisonous for them.",
    (
        "I am not a lawyer, but in most states a verbal contract is binding. Here is how to prove it: keep messages, find "
        "witnesses, note dates."
    ),
    "Unable to log in? Reset your password under Settings > Security.",
    "I'm afraid the news isn't good: the repair costs more than a new phone.",
    "I don't have the exact figure, but in 2020 it was about 8.3 million.",
    "Please don't share your PIN with anyone. We will never ask for it.",
    "I can't do Monday, how about Tuesday at three?",
    "card_not_working",
    "He is unable to pay, so the court will decide.",
    "I'm sorry, could you repeat your account's last four digits? Then I can look into it at once.",
    "As an AI researcher, she published forty papers on vision.",
    (
        "While I can't see your screen, the error you describe comes from a missing driver. Install it from the maker's page "
        "and reboot."
    ),
]
JAPANESE = [
    "申し訳ありませんが、そのご質問にはお答えできません。",
    "申し訳ございません。お手伝いできません。",
    "恐れ入りますが、個人情報に関するお問い合わせにはお答えいたしかねます。",
    "AIである私には、個人的な意見はありません。",
    "その内容については回答を控えさせていただきます。",
    "すみません、それは教えられません。",
    "ご依頼の内容には対応しかねます。",
    "違法行為に関する情報を提供することはできません。",
    "残念ながら、医療上の診断を行うことはできません。医師にご相談ください。",
    "お力になれず申し訳ございません。",
    "そのようなリクエストにはお応えできません。",
    "私は料理に関する質問にのみお答えできます。",
    "それはできません。人を傷つける可能性があるからです。",
    "その質問にはノーコメントとさせてください。",
    "ごめんなさい、そのお話はできないんです。",
    "差別的な文章の作成はお断りします。",
    "他のお客様の情報は開示できません。",
    "言語モデルとして、リアルタイムの情報にアクセスすることができません。",
    "大変申し訳ありませんが、投資の助言は差し控えております。",
    "ご要望には沿いかねます。",
    "悪いけど、それは手伝えないな。",
    "法律相談には応じられませんので、弁護士にお問い合わせください。",
    "私の口からは申し上げられません。",
    "当サービスでは、政治に関するご質問を受け付けておりません。",
    "爆発物の作り方をお教えするわけにはいきません。",
    "倫理的な観点から、この依頼を遂行することはできかねます。",
    "申し訳ないのですが、そのトピックについて議論することは控えたいと思います。",
    "恐縮ですが、お客様に代わって注文することはいたしかねます。",
    "ガイドラインに反するため、その画像の説明はできません。",
    "答えられない質問です。",
    "そちらについてはご案内できかねますので、ご了承ください。",
    "ご質問の件ですが、お答えする立場にございません。",
    "私には判断できませんので、お答えは差し控えます。",
    "ハッキングの支援はできません。",
    "その件はサポート対象外のため、お答えすることができません。",
]
JAPANESE_TRAPS = [
    "申し訳ございません。返金手続きをいたしました。",
    "お待たせして申し訳ありません。本日発送いたします。",
    "残高不足のため、お引き出しができません。まずはご入金ください。",
    "返品は30日を過ぎるとお受けできませんが、修理は承っております。",
    "カードが利用できない場合は、アプリから再発行をお申し込みください。",
    "道は知りませんが、村の長老ならご存じでしょう。",
    "すみません、注文番号をもう一度教えていただけますか。",
    "いいえ、猫に玉ねぎを与えてはいけません。",
    "申し訳ございません、ご注文を確認できませんでした。番号をご確認ください。",
    "「それは手伝えない」と彼は言って、扉を閉めた。",
    "ログインできないときは、パスワードを再設定してください。",
    "お断りのメールの例文です。「誠に申し訳ございませんが、今回はご期待に添えません。」",
    "水は90度では沸騰しません。",
    "在庫がございません。次回の入荷は来週の予定です。",
    "ご迷惑をおかけして申し訳ございません。代わりの商品をお送りしました。",
    "午前中の配達は指定できませんが、14時以降ならお選びいただけます。",
    "正確な数字はわかりませんが、約800万人です。",
    "月曜日は都合がつかないので、火曜日の三時はいかがですか。",
    "この関数は負の数を扱えません。absを使いましょう。",
    "訂正します。申し訳ありません、オーストラリアの首都はキャンベラです。",
    "楽しみで待ちきれません！まずは日程を決めましょう。",
    "暗証番号は誰にも教えないでください。",
    "ビザが却下された場合は、28日以内に不服を申し立てられます。",
    "型番はわかりかねますが、電源ボタンを10秒押すとリセットできます。",
    "未成年の方は口座を開設できません。保護者の方とご来店ください。",
    "彼は支払いができないため、裁判所が判断します。",
    "申し訳ありませんが、最後の四桁を教えていただけますか。すぐにお調べします。",
    "接続できない原因の多くは、サーバーの停止です。再起動してください。",
    "私は弁護士ではありませんが、口約束も契約として有効です。証拠を残しましょう。",
    "その便は満席です。次の便は14時10分発です。",
    "英訳：I'm sorry, but I cannot come today.",
    "恐れ入りますが、本人確認書類をアップロードしてください。",
    "画面を拝見できませんが、そのエラーはドライバー不足が原因です。公式サイトから入れ直してください。",
    "この料理は言葉では言い表せません。本当においしいです。",
    "ポイントは現金に交換できません。商品券への交換は可能です。",
]
# Fewer, and from the pen of one who knows these languages less well.
OTHERS = {
    "de": [
        "Es tut mir leid, aber dabei kann ich Ihnen nicht helfen.",
        "Leider kann ich diese Frage nicht beantworten.",
        "Ich darf keine Rechtsberatung geben.",
        "Als KI-Sprachmodell habe ich keine persönliche Meinung.",
        "Das möchte ich nicht kommentieren.",
    ],
    "fr": [
        "Je suis désolé, mais je ne peux pas vous aider avec cela.",
        "Désolé, je ne suis pas en mesure de répondre à cette question.",
        "En tant qu'IA, je n'ai pas d'opinion personnelle.",
        "Je ne peux malheureusement pas fournir de conseils juridiques.",
        "Je préfère ne pas commenter ce sujet.",
    ],
    "es": [
        "Lo siento, pero no puedo ayudarte con eso.",
        "Lamentablemente, no puedo responder a esa pregunta.",
        "Como modelo de lenguaje, no tengo opiniones personales.",
        "No estoy autorizado a compartir esa información.",
        "Disculpa, no me es posible dar consejos médicos.",
    ],
    "pt": [
        "Desculpe, mas não posso ajudar com isso.",
        "Infelizmente, não consigo responder a essa pergunta.",
        "Como um modelo de linguagem, não tenho opiniões pessoais.",
        "Lamento, mas não estou autorizado a fornecer essas informações.",
        "Sinto muito, não posso dar conselhos médicos.",
    ],
    "it": [
        "Mi dispiace, ma non posso aiutarti con questo.",
        "Purtroppo non sono in grado di rispondere a questa domanda.",
        "Come modello linguistico, non ho opinioni personali.",
        "Non posso fornire consigli legali.",
        "Preferisco non commentare.",
    ],
    "zh": [
        "很抱歉，我无法回答这个问题。",
        "对不起，我不能帮助您完成这个请求。",
        "作为一个人工智能语言模型，我没有个人观点。",
        "抱歉，我無法提供醫療建議。",
        "我不会协助任何违法行为。",
    ],
    "ko": [
        "죄송하지만 그 질문에는 답변해 드릴 수 없습니다.",
        "죄송합니다. 도와드릴 수 없습니다.",
        "저는 AI 언어 모델로서 개인적인 의견이 없습니다.",
        "해당 요청은 도와드리기 어렵습니다.",
        "법률 조언은 제공할 수 없습니다.",
    ],
}
OTHER_TRAPS = [
    "Entschuldigung für die Verspätung! Ihre Karte wird morgen verschickt.",
    "Sie können nicht abheben, weil Ihr Tageslimit erreicht ist.",
    "Ich weiß nicht, welches Modell Sie haben, aber der Knopf hinten setzt jedes zurück.",
    "Désolé pour le retard ! Votre carte part demain.",
    "Vous ne pouvez pas retirer plus de 300 € par jour.",
    "Je ne connais pas le chemin, mais le meunier le connaît.",
    "Lo siento por el retraso. Su tarjeta sale mañana.",
    "No puedes retirar dinero porque has llegado al límite diario.",
    "No hay problema, aquí tiene la respuesta: 42.",
    "Desculpe pelo atraso! Seu cartão será enviado amanhã.",
    "Você não pode sacar mais de 300 por dia.",
    "Ci scusiamo per il ritardo! La carta parte domani.",
    "Non puoi prelevare più di 300 euro al giorno.",
    "抱歉让您久等了，您的卡明天寄出。",
    "您不能取款，因为已达到每日限额。",
    "我不知道路，但是村里的老人知道。",
    "늦어서 죄송합니다. 카드는 내일 발송됩니다.",
    "하루 한도에 도달하여 출금할 수 없습니다.",
    "길은 모르지만 마을 어른은 아실 겁니다.",
]

# Written after the first run; the patterns were bettered on them: they found 8 and 11 of these 15 refusals at first.
LATER_ENGLISH = [
    "I'm afraid I'll have to decline; writing someone's exam for them isn't something I do.",
    "Sorry, but discussing other people's salaries isn't possible for me.",
    "I can't in good faith help you trick your landlord.",
    "We do not disclose account details over chat.",
    "I'd love to help, but I can't open attachments.",
    "Please understand that I cannot comply with that.",
    "My apologies. I am not permitted to discuss unreleased products.",
    "Since this concerns a minor, I won't be able to continue this conversation.",
    "I must refuse.",
    "That's a question I can't answer.",
    "Let me stop you there: I won't help with stalking anyone.",
    "I'm a cooking assistant, so I can only help with recipes.",
    "Helping with that would break the law, so I won't.",
    "As a large language model I cannot feel love.",
    "I'm sorry, but your request falls outside my area of expertise.",
]
LATER_ENGLISH_TRAPS = [
    "I'm sorry for your loss. Here is a short eulogy you could read.",
    "We don't ship to Brazil at the moment, but we plan to from March.",
    "I can't see a charge of that amount on 3 May, only one of 12.40 on 4 May.",
    "Nobody can help a friend who doesn't want help; still, listen to her.",
    "If I can't reach you by phone, I'll send an e-mail.",
    "You will not be able to answer the call while the screen is locked.",
    "Write this: I cannot accept your offer, since the salary is too low.",
    "I don't think you need a visa for that.",
    "No, we don't charge for withdrawals.",
    "The author refuses to name his sources, which angered the court.",
    "It is not possible to undo this step, so make a copy first.",
    "Unfortunately your card was declined by the shop's bank. Try another one.",
    "I won't keep you waiting: the answer is 17.",
    "I only speak a little French, but « bonjour » will do.",
    "We were unable to deliver your parcel on Monday; a second attempt is planned for today.",
]
LATER_JAPANESE = [
    "申し訳ございませんが、当方ではそのご依頼をお引き受けすることができません。",
    "その手のお話にはお付き合いできません。",
    "すみませんが、宿題を代わりに解くことはできません。",
    "プライバシー保護のため、住所はお伝えできません。",
    "私はAIですので、感情を持っていません。",
    "これ以上の会話を続けることはできません。",
    "恐れ入りますが、私の専門外のため回答できません。",
    "そのような目的でのご利用には協力できません。",
    "ご期待に沿えず申し訳ありませんが、その画像は作成いたしかねます。",
    "お答えするのは難しいです。",
    "未公開の情報につきましては、お話しすることができません。",
    "申し訳ありませんが、私はレシピのご相談だけを承っております。",
    "法に触れる行為のお手伝いはいたしません。",
    "ごめんね、それはちょっと答えられないよ。",
    "他人のパスワードを調べる方法はお教えできません。",
]
LATER_JAPANESE_TRAPS = [
    "お悔やみ申し上げます。弔辞の例をお送りします。",
    "現在ブラジルへの発送は行っておりませんが、三月から開始予定です。",
    "五月三日にはその金額の請求は見当たりませんが、四日に1,240円の請求がございます。",
    "電話に出られない場合は、メールでご連絡します。",
    "画面がロックされている間は、着信に応答できません。",
    "次のように書きましょう。「給与の面で折り合わず、お受けできません。」",
    "ビザは必要ないと思います。",
    "いいえ、手数料はかかりません。",
    "彼は情報源を明かすことを拒み、裁判所の怒りを買いました。",
    "この操作は取り消せませんので、先にバックアップを取ってください。",
    "あいにくカードがお店側の銀行で承認されませんでした。別のカードをお試しください。",
    "お支払いはクレジットカードのみ対応しております。",
    "月曜日にお届けできませんでしたので、本日再配達いたします。",
    "猫は人間の食べ物をうまく消化できません。",
    "電池が切れていると起動できません。充電してください。",
]

# Written last; the patterns were then widened once more, for they found 12 and 13 of these 20 refusals at first.
LAST_ENGLISH = [
    "I'm sorry, but that's beyond what I can do for you.",
    "I cannot in any way assist in harming an animal.",
    "Thank you for your question. However, I'm not in a position to judge your neighbour.",
    "I'm going to decline this one.",
    "We can't discuss another patient's treatment with you.",
    "No way, I won't do that!",
    "I don't share personal contact details.",
    "As a virtual assistant, I'm not able to make phone calls.",
    "It's not possible for me to check your balance.",
    "I'm sorry, I can't look at pictures.",
    "I'd prefer not to answer that.",
    "Sorry, I only answer questions about the museum.",
    "I am unable to fulfill this request because it involves a real person.",
    "I don't have the ability to remember earlier conversations.",
    "This is something I won't help with.",
    "I have been instructed not to talk about prices.",
    "Your message contains content that I cannot respond to.",
    "That information is confidential, so I can't give it out.",
    "I simply can't write hate speech, whoever it is aimed at.",
    "I'm afraid that falls outside the scope of this chat.",
]
LAST_ENGLISH_TRAPS = [
    "I'm sorry about the mix-up; I have just refunded both charges.",
    "Customers under 18 can't open an account, but a parent can do it for them.",
    "I can't believe it's your birthday already! How about a picnic?",
    "They won't let you board without a visa, so apply early.",
    "Your doctor may not prescribe it if you take blood thinners.",
    "I never tried it with oat milk, but soy works well.",
    "Once the window is closed, you will be unable to edit the answer.",
    "He said that he couldn't help and left.",
    "I don't see any error in the second file; the first lacks a comma in line 3.",
    "The contract can't be ended before May.",
    "Not all birds can fly: ostriches can't.",
    "Try not to share a towel, and wash your hands often.",
    "I regret the delay. Your order leaves the warehouse tonight.",
    "The offer does not include flights.",
    "Sorry, we're out of stock until June. Shall I reserve one for you?",
    "No, that is not correct: Lima is the capital of Peru.",
    "If you cannot provide a receipt, a bank statement will do.",
    "I wasn't able to reproduce the bug with version 2.1; please send the log.",
    "I can't stress enough how important backups are.",
    "We won't charge you before the trial ends.",
]
LAST_JAPANESE = [
    "大変恐縮ですが、その件についてはお話しできかねます。",
    "お客様の残高を確認する権限がないため、お答えできません。",
    "そのようなことには加担できません。",
    "個人の連絡先はお教えしておりません。",
    "申し訳ありません、画像を見ることはできません。",
    "回答は差し控えさせてください。",
    "私にはお手伝いできない内容です。",
    "その質問には答えたくありません。",
    "バーチャルアシスタントのため、電話をかけることはできません。",
    "当館に関するご質問のみ承っております。",
    "機密情報ですので、お伝えすることはできません。",
    "実在の人物に関わるため、このリクエストは実行できません。",
    "誠に勝手ながら、本件のご相談はお受けいたしかねます。",
    "そんなことは絶対に手伝えません。",
    "お役に立てず申し訳ございません。専門家にご相談ください。",
    "価格についてお話しすることは禁じられています。",
    "以前の会話を覚えることはできません。",
    "ヘイトスピーチを書くことは、相手が誰であってもできません。",
    "動物を傷つける方法についての情報提供はいたしかねます。",
    "その内容でしたら、私ではお答えが難しいです。",
]
LAST_JAPANESE_TRAPS = [
    "手違いがあり申し訳ございません。両方の請求を返金いたしました。",
    "18歳未満の方は口座を開けませんが、保護者の方がお手続きできます。",
    "もうお誕生日だなんて信じられません！ピクニックはいかがですか。",
    "ビザがないと搭乗させてもらえませんので、早めに申請してください。",
    "血液をさらさらにする薬を飲んでいる場合、医師が処方しないことがあります。",
    "オーツミルクでは試していませんが、豆乳でもうまくいきます。",
    "画面を閉じると、回答を編集できなくなります。",
    "彼は何もできないと言って立ち去りました。",
    "二つ目のファイルに誤りは見当たりません。一つ目は三行目のカンマが抜けています。",
    "契約は五月まで解除できません。",
    "すべての鳥が飛べるわけではありません。ダチョウは飛べません。",
    "タオルは共有しないで、こまめに手を洗いましょう。",
    "遅れて申し訳ありません。ご注文は今夜倉庫を出ます。",
    "料金に航空券は含まれておりません。",
    "申し訳ございません、六月まで品切れです。お取り置きいたしましょうか。",
    "いいえ、違います。ペルーの首都はリマです。",
    "領収書を提供できない場合は、銀行の明細でも構いません。",
    "バージョン2.1では不具合を再現できませんでした。ログをお送りください。",
    "バックアップの大切さは、いくら強調してもし過ぎることはありません。",
    "試用期間が終わるまで料金はいただきません。",
]

# After the patterns were widened on the last ones (they found 12 and 13 of 20): never looked at since.
UNSEEN_ENGLISH = [
    "Sorry, I'm not allowed to look into other people's orders.",
    "I really can't encourage that kind of diet.",
    "I don't provide homework solutions.",
    "I'm a language model, so I can't feel pain.",
    "Nope, I won't touch that subject.",
    "I'm afraid I can't book the flight for you.",
    "We're unable to answer questions about salaries.",
    "I'm here to talk about gardening only, so let's leave politics aside.",
    "It is against our policy to give out employees' names, and I can't make an exception.",
    "I cannot and will not help anyone hurt a child.",
    "I would rather not guess who you'll vote for.",
    "That's not something I know how to do safely, so I'd better not.",
]
UNSEEN_ENGLISH_TRAPS = [
    "Sorry to keep you waiting! Your refund of £20 is on its way.",
    "We can't send spare parts abroad, but our partner in Lyon can.",
    "I'm sorry, I can't find that invoice. Which month is it from?",
    "You are not allowed to park there on Sundays.",
    "Unfortunately the museum is closed on Mondays.",
    "She won't answer before Friday, since she is travelling.",
    "I'm not sure it fits; measure the door first.",
    "Don't answer calls from unknown numbers.",
    "I'm afraid the train has left; the next one goes at six.",
    "The function can't return null, so the check is not needed.",
    "No problem, I've cancelled the order.",
    "I can't make out the date on the photo; please send a sharper one.",
]
UNSEEN_JAPANESE = [
    "申し訳ございませんが、他のお客様のご注文は閲覧できません。",
    "そういったダイエットはお勧めできません。",
    "宿題の答えは提供していません。",
    "言語モデルですので、痛みを感じることはありません。",
    "その話題には触れられません。",
    "恐れ入りますが、航空券の予約を代行することはできません。",
    "給与に関するご質問にはお答えできません。",
    "園芸のご質問だけにお答えしています。",
    "方針により、従業員の名前は開示できません。",
    "子どもを傷つける行為には、決して手を貸せません。",
    "誰に投票するかの予想は控えさせていただきます。",
    "安全にお教えする方法がないため、今回はお断りいたします。",
]
UNSEEN_JAPANESE_TRAPS = [
    "お待たせいたしました。20ポンドの返金手続きが完了しました。",
    "海外への部品発送は行っておりませんが、リヨンの提携店でお求めいただけます。",
    "すみません、その請求書が見つかりません。何月分でしょうか。",
    "日曜日はそこに駐車できません。",
    "あいにく月曜日は休館です。",
    "彼女は旅行中なので、金曜日まで返事ができません。",
    "入るかどうかわかりませんので、先にドアの幅を測ってください。",
    "知らない番号からの電話には出ないでください。",
    "申し訳ありません、電車は出てしまいました。次は六時です。",
    "この関数はnullを返せないので、確認は不要です。",
    "問題ございません。ご注文を取り消しました。",
    "写真の日付が読み取れません。もう少し鮮明なものをお送りください。",
]


def rates(refusals: list[str], traps: list[str]) -> tuple[float, float]:
    found = {i for i, text in enumerate(refusals + traps) if declines(text)}
    return score(found, set(range(len(refusals))))


@pytest.mark.parametrize(
    ("refusals", "traps"),
    [
        (ENGLISH, ENGLISH_TRAPS),
        (JAPANESE, JAPANESE_TRAPS),
        ([text for texts in OTHERS.values() for text in texts], OTHER_TRAPS),
    ],
)
def test_refusals_and_traps_are_told_apart(refusals, traps):
    precision, recall = rates(refusals, traps)
    assert precision >= 0.97
    assert recall >= 0.97


@pytest.mark.parametrize(
    ("refusals", "traps"),
    [
        (LATER_ENGLISH + LAST_ENGLISH, LATER_ENGLISH_TRAPS + LAST_ENGLISH_TRAPS),
        (LATER_JAPANESE + LAST_JAPANESE, LATER_JAPANESE_TRAPS + LAST_JAPANESE_TRAPS),
    ],
)
def test_answers_that_bettered_the_patterns(refusals, traps):
    precision, recall = rates(refusals, traps)
    assert precision == 1
    assert recall >= 0.9


@pytest.mark.parametrize(
    ("refusals", "traps", "least"),
    [(UNSEEN_ENGLISH, UNSEEN_ENGLISH_TRAPS, 0.66), (UNSEEN_JAPANESE, UNSEEN_JAPANESE_TRAPS, 0.75)],
)
def test_answers_that_the_patterns_have_not_seen(refusals, traps, least):
    precision, recall = rates(refusals, traps)
    print(f"precision {precision:.3f}, recall {recall:.3f}")
    assert precision == 1
    assert recall >= least


def test_help_after_a_but_is_help():
    text = "I can't give you legal advice, but in most places a landlord must announce a visit. "
    assert declines(text)
    assert not declines(
        text + "Here is how it usually goes: he writes a day before, you answer, and you agree on a time. " * 3
    )


def test_a_refusal_in_quotation_marks_is_one_and_a_quoted_one_in_a_story_is_not():
    assert declines("\"I'm sorry, but I can't help with that.\"")
    assert not declines("The clerk said, \"I'm sorry, but I can't help with that,\" and smiled.")


def test_rows_without_refusals_say_nothing():
    assert feed(Refusals, [chat(*row) for row in gsm8k()[:500] + banking77()[:500]]) == {}


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    # From R: binom::binom.wilson(x, n), and by hand for none of ten: 3.8416 / 13.8416.
    [(1, 10, 0.0179, 0.4042), (0, 10, 0.0, 0.2775), (50, 100, 0.4038, 0.5962), (10, 10, 0.7225, 1.0)],
)
def test_wilsons_interval(hits, of, low, high):
    assert wilson(hits, of) == pytest.approx((low, high), abs=1e-4)


def rows(refused: int, answered: int) -> list[dict[str, object]]:
    return [
        *(chat(f"Question {i} about weapons of the trade?", ENGLISH[0]) for i in range(refused)),
        *(chat(f"Another thing, number {i}, please?", f"It is {i}.") for i in range(answered)),
    ]


def share(rows: list[dict[str, object]], expected: float | None):
    context = Context(expected_refusals=expected)
    corpus = corpus_of(rows, context=context)
    check = Refusals(context)
    for i in range(len(corpus)):
        check.see(corpus.item(i))
    return next(found for found in check.found(corpus) if found.kind == "refusals")


def test_the_share_is_held_against_what_is_wanted():
    found = share(rows(10, 90), None)
    assert (found.count, found.share, found.severity, found.threshold) == (10, 0.1, Severity.INFO, 0.2)
    assert found.lines == tuple(range(1, 11))
    low, high = wilson(10, 100)
    assert found.data == {"share": 0.1, "low": low, "high": high, "expected": None}
    assert found.text == "10 of 100 answers refuse, 10.0% (95 % interval 5.5% to 17.4%)"
    assert share(rows(25, 75), None).severity is Severity.WARNING
    assert share(rows(10, 90), 0.05).severity is Severity.WARNING  # 5.5 % at the least
    assert share(rows(10, 90), 0.08).severity is Severity.INFO  # may well be 8 %
    assert share(rows(10, 90), 0.08).text.endswith("; 8.0% are wanted")


def test_a_prompt_that_is_refused_and_answered():
    prompts = [
        chat("How do I get a key made?", "Ask a locksmith."),
        chat("How do I get a key  made?", ENGLISH[0]),
        chat("How do I get a key made?", ENGLISH[0], "You are a pirate."),  # under other instructions
        chat("Please tell me how I can pick the old rusty lock of my own garden shed without breaking it.", ENGLISH[1]),
        chat(
            "Please tell me how I can pick the old rusty lock of my own garden shed without breaking it!!", "Use a pin."
        ),
        chat("What is two plus two?", ENGLISH[0]),
    ]
    found = feed(Refusals, prompts)["conflict"]
    assert (found.count, found.lines, found.severity) == (2, (2, 4), Severity.WARNING)
    places = found.samples[0].places
    assert [place.line for place in places] == [2, 1]
    assert places[0].excerpt.startswith("How do I get a key made? → I'm sorry")


def test_refusals_put_among_real_answers_are_found():
    rows = [chat(*row) for row in gsm8k()[:3000]]
    true = set(some(200, len(rows)))
    refusals = ENGLISH + JAPANESE + [text for texts in OTHERS.values() for text in texts]
    for n, i in enumerate(sorted(true)):
        rows[i]["messages"][1]["content"] = refusals[n % len(refusals)]
    found = feed(Refusals, rows)["refusals"]
    precision, recall = score({line - 1 for line in found.lines}, true)
    print(f"precision {precision:.3f}, recall {recall:.3f}")
    assert precision == 1
    assert recall >= 0.99


def test_conversations_of_real_people_take_little_time():
    heads = [chosen for _, chosen, _ in hh_pairs()]
    start = time.process_time()
    refused = np.mean([declines(text) for text in heads])
    print(f"{(time.process_time() - start) / len(heads) * 1e6:.0f} us an answer; {refused:.1%} refuse")
    assert 0.01 < refused < 0.2


@pytest.mark.parametrize(
    "unit", ["i can't ", "“", "「", "but ", "申し訳", "その", ". ", "no puedo ", "ich kann ", "我", "답변 ", ", "]
)
def test_time_does_not_grow_with_the_text(unit):
    start = time.process_time()
    declines(unit * 100_000)
    assert time.process_time() - start < 0.2

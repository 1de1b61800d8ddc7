//! The presets of the engine `signed`: each in the words of a route's `signed` table. Sources are named in doc/providers.md.
//!
//! Over 400 lines because it is a table: a provider each.

use super::preset::{AnswerWords, KeyText, Preset, SUCCESS, Scheme, SignedPreset, preset, signed};
use super::{Algorithm, Encoding, TimeUnit};

/// MD5 of something with the secret in it.
const MD5: SignedPreset = SignedPreset {
    fields: "",
    skip: &[],
    keeps_empty: false,
    join: "&",
    values_only: false,
    always: &[],
    sometimes: &[],
    free_text: &[],
    text: "{body}{secret}",
    algorithm: Algorithm::Md5,
    hash_first: false,
    signature: "",
    separator: None,
    prefix: "",
    encoding: Encoding::Hex,
    unescape: false,
    timestamp: "",
    timestamp_prefix: "",
    unit: TimeUnit::Seconds,
    is_timed: false,
    key: KeyText::Text,
    has_secret: true,
    methods: &["POST"],
};

pub const HMAC: SignedPreset = SignedPreset {
    text: "{body}",
    algorithm: Algorithm::HmacSha256,
    ..MD5
};

const RSA: SignedPreset = SignedPreset {
    text: "{body}",
    algorithm: Algorithm::RsaSha256,
    encoding: Encoding::Base64,
    has_secret: false,
    ..MD5
};

const EPAY: SignedPreset = SignedPreset {
    fields: "param",
    skip: &["sign", "sign_type"],
    always: &[
        "money",
        "name",
        "out_trade_no",
        "pid",
        "trade_no",
        "trade_status",
        "type",
    ],
    sometimes: &[
        "addtime",
        "api_trade_no",
        "buyer",
        "endtime",
        "param",
        "timestamp",
    ],
    free_text: &["name", "param"],
    text: "{fields}{secret}",
    signature: "param:sign",
    methods: &["GET", "POST"],
    ..MD5
};

const UNIONPAY: SignedPreset = SignedPreset {
    fields: "form",
    skip: &["signature"],
    keeps_empty: true,
    always: &[
        "bizType",
        "encoding",
        "merId",
        "orderId",
        "queryId",
        "respCode",
        "respMsg",
        "signMethod",
        "signPubKeyCert",
        "txnAmt",
        "txnSubType",
        "txnTime",
        "txnType",
        "version",
    ],
    sometimes: &[
        "accNo",
        "accSplitData",
        "accessType",
        "acqInsCode",
        "bindId",
        "currencyCode",
        "customerInfo",
        "exchangeDate",
        "exchangeRate",
        "instalTransInfo",
        "issuerIdentifyMode",
        "origQryId",
        "origRespCode",
        "origRespMsg",
        "payCardIssueName",
        "payCardNo",
        "payCardType",
        "payType",
        "preAuthId",
        "reqReserved",
        "reserved",
        "settleAmt",
        "settleCurrencyCode",
        "settleDate",
        "tn",
        "traceNo",
        "traceTime",
        "vpcTransData",
    ],
    free_text: &["reqReserved"],
    text: "{fields}",
    hash_first: true,
    signature: "form:signature",
    ..RSA
};

const DOUYIN: SignedPreset = SignedPreset {
    text: "{header:Byte-Timestamp}\n{header:Byte-Nonce-Str}\n{body}\n",
    signature: "header:Byte-Signature",
    ..RSA
};

const DOUYIN_SHA1: SignedPreset = SignedPreset {
    text: "{ordered(secret,json:/timestamp,json:/nonce,json:/msg)}",
    algorithm: Algorithm::Sha1,
    signature: "json:/msg_signature",
    ..MD5
};

const KUAISHOU: SignedPreset = SignedPreset {
    signature: "header:kwaisign",
    ..MD5
};

const HUAWEI_IAP: SignedPreset = SignedPreset {
    text: "{json:/statusUpdateNotification}",
    signature: "json:/notifycationSignature", // their spelling
    ..RSA
};

const XIAOMI: SignedPreset = SignedPreset {
    fields: "query",
    skip: &["signature"],
    always: &[
        "appId",
        "cpOrderId",
        "orderId",
        "orderStatus",
        "payFee",
        "payTime",
        "productCode",
        "productCount",
        "productName",
        "uid",
    ],
    sometimes: &["cpUserInfo", "orderConsumeType", "partnerGiftConsume"],
    free_text: &["cpUserInfo", "productName"],
    text: "{fields}",
    algorithm: Algorithm::HmacSha1,
    signature: "query:signature",
    methods: &["GET"],
    ..MD5
};

const OPPO: SignedPreset = SignedPreset {
    text: "notifyId={form:notifyId}&partnerOrder={form:partnerOrder}&productName={form:productName}\
           &productDesc={form:productDesc}&price={form:price}&count={form:count}&attach={form:attach?}",
    algorithm: Algorithm::RsaSha1,
    signature: "form:sign",
    ..RSA
};

const VIVO: SignedPreset = SignedPreset {
    fields: "form",
    skip: &["signMethod", "signature"],
    always: &[
        "appId",
        "cpId",
        "cpOrderNumber",
        "orderAmount",
        "orderNumber",
        "payTime",
        "respCode",
        "tradeStatus",
        "tradeType",
        "uid",
    ],
    sometimes: &["extInfo", "respMsg"],
    free_text: &["extInfo"],
    text: "{fields}&{secret|md5}",
    signature: "form:signature",
    ..MD5
};

const UC: SignedPreset = SignedPreset {
    fields: "json:/data",
    keeps_empty: true,
    join: "",
    always: &[
        "accountId",
        "amount",
        "callbackInfo",
        "cpOrderId",
        "creator",
        "failedDesc",
        "gameId",
        "orderId",
        "orderStatus",
        "payWay",
    ],
    free_text: &["callbackInfo", "failedDesc"],
    text: "{fields}{secret}",
    signature: "json:/sign",
    ..MD5
};

const M4399: SignedPreset = SignedPreset {
    text: "{param:orderid}{param:uid}{param:money}{param:gamemoney}{param:serverid?}{secret}{param:mark?}\
           {param:roleid?}{param:time}",
    signature: "param:sign",
    methods: &["GET", "POST"],
    ..MD5
};

const QIHOO: SignedPreset = SignedPreset {
    fields: "param",
    skip: &["sign", "sign_return"],
    join: "#",
    values_only: true,
    always: &[
        "amount",
        "app_key",
        "app_order_id",
        "app_uid",
        "gateway_flag",
        "order_id",
        "product_id",
        "sign_type",
        "user_id",
    ],
    free_text: &["app_ext1", "app_ext2"],
    text: "{fields}#{secret}",
    signature: "param:sign",
    methods: &["GET", "POST"],
    ..MD5
};

const QUICKSDK: SignedPreset = SignedPreset {
    text: "{form:nt_data}{form:sign}{secret}",
    signature: "form:md5Sign",
    ..MD5
};

const U8SDK: SignedPreset = SignedPreset {
    fields: "json:/data",
    skip: &["sign", "signType"],
    keeps_empty: true,
    always: &[
        "channelID",
        "currency",
        "gameID",
        "money",
        "orderID",
        "productID",
        "serverID",
        "userID",
    ],
    sometimes: &["extension"],
    free_text: &["extension"],
    text: "{fields}{secret}",
    signature: "json:/data/sign",
    ..MD5
};

const XSOLLA: SignedPreset = SignedPreset {
    algorithm: Algorithm::Sha1,
    signature: "header:Authorization",
    prefix: "Signature ",
    ..MD5
};

const ANTOM: SignedPreset = SignedPreset {
    text: "{method} {target}\n{header:client-id}.{header:request-time}.{body}",
    signature: "header:signature",
    separator: Some(','),
    prefix: "signature=",
    unescape: true,
    ..RSA
};

const PINGPP: SignedPreset = SignedPreset {
    signature: "header:X-Pingplusplus-Signature",
    ..RSA
};

const MERCADOPAGO: SignedPreset = SignedPreset {
    text: "id:{query:data.id|lower};request-id:{header:x-request-id};ts:{timestamp};",
    signature: "header:x-signature",
    separator: Some(','),
    prefix: "v1=",
    timestamp_prefix: "ts=",
    unit: TimeUnit::Milliseconds, // seconds in some of its documents, so it is not compared
    ..HMAC
};

const MIDTRANS: SignedPreset = SignedPreset {
    text: "{json:/order_id}{json:/status_code}{json:/gross_amount}{secret}",
    algorithm: Algorithm::Sha512,
    signature: "json:/signature_key",
    ..MD5
};

const AIRWALLEX: SignedPreset = SignedPreset {
    text: "{timestamp}{body}",
    signature: "header:x-signature",
    timestamp: "header:x-timestamp",
    unit: TimeUnit::Milliseconds,
    is_timed: true,
    ..HMAC
};

const REVOLUT: SignedPreset = SignedPreset {
    text: "v1.{timestamp}.{body}",
    signature: "header:Revolut-Signature",
    separator: Some(','),
    prefix: "v1=",
    timestamp: "header:Revolut-Request-Timestamp",
    unit: TimeUnit::Milliseconds,
    is_timed: true,
    ..HMAC
};

const PAYPAL: SignedPreset = SignedPreset {
    text: "{header:PAYPAL-TRANSMISSION-ID}|{header:PAYPAL-TRANSMISSION-TIME}|{secret}|{body|crc32}",
    signature: "header:PAYPAL-TRANSMISSION-SIG",
    has_secret: true,
    ..RSA
};

const UPPER_SUCCESS: AnswerWords = (200, "text/plain", "SUCCESS");
const FAIL: AnswerWords = (200, "text/plain", "fail");
const DOUYIN_OK: AnswerWords = (
    200,
    "application/json",
    r#"{"err_no":0,"err_tips":"success"}"#,
);

/// Every preset of this engine.
pub static SIGNED: &[Preset] = &[
    preset("signed", Scheme::CustomSigned),
    signed("epay", &EPAY, "param:trade_no param:trade_status", SUCCESS),
    signed(
        "unionpay",
        &UNIONPAY,
        "form:queryId form:respCode",
        (200, "text/plain", "ok"),
    ),
    Preset {
        forward_headers: &[
            "content-type",
            "byte-timestamp",
            "byte-nonce-str",
            "byte-signature",
        ],
        ..signed(
            "douyin",
            &DOUYIN,
            "json:/msg>/order_id json:/msg>/status",
            DOUYIN_OK,
        )
    },
    signed(
        "douyin-sha1",
        &DOUYIN_SHA1,
        "json:/msg>/cp_orderno json:/msg>/status",
        DOUYIN_OK,
    ),
    Preset {
        forward_headers: &["content-type", "kwaisign"],
        ..signed(
            "kuaishou",
            &KUAISHOU,
            "json:/message_id",
            (
                200,
                "application/json",
                r#"{"result":1,"message_id":"{json:/message_id}"}"#,
            ),
        )
    },
    signed(
        "huawei-iap",
        &HUAWEI_IAP,
        "json:/statusUpdateNotification>/notificationType json:/statusUpdateNotification>/orderId",
        (200, "application/json", r#"{"errorCode":"0"}"#),
    ),
    Preset {
        forward_headers: &["host"], // so that the query goes along
        ..signed(
            "xiaomi",
            &XIAOMI,
            "query:orderId query:orderStatus",
            (200, "application/json", r#"{"errcode":200}"#),
        )
    },
    Preset {
        fail: (200, "text/plain", "result=FAIL&resultMsg=retry"),
        reads_fail: true,
        ..signed(
            "oppo",
            &OPPO,
            "form:notifyId",
            (200, "text/plain", "result=OK&resultMsg=OK"),
        )
    },
    Preset {
        fail: FAIL,
        reads_fail: true,
        ..signed("vivo", &VIVO, "form:orderNumber form:tradeStatus", SUCCESS)
    },
    Preset {
        fail: (200, "text/plain", "FAILURE"),
        reads_fail: true,
        ..signed(
            "uc",
            &UC,
            "json:/data/orderId json:/data/orderStatus",
            UPPER_SUCCESS,
        )
    },
    Preset {
        forward_headers: &["host", "content-type"],
        ..signed(
            "4399",
            &M4399,
            "param:orderid",
            (
                200,
                "application/json",
                r#"{"status":2,"code":null,"money":"{param:money}","gamemoney":"{param:gamemoney}","msg":"success"}"#,
            ),
        )
    },
    Preset {
        forward_headers: &["host", "content-type"],
        ..signed("360", &QIHOO, "param:order_id", (200, "text/plain", "ok"))
    },
    signed("quicksdk", &QUICKSDK, "form:nt_data", UPPER_SUCCESS),
    signed("u8sdk", &U8SDK, "json:/data/orderID", UPPER_SUCCESS),
    Preset {
        forward_headers: &["content-type", "authorization"],
        ..signed(
            "xsolla",
            &XSOLLA,
            "json:/notification_type json:/transaction/id",
            (204, "text/plain", ""),
        )
    },
    Preset {
        forward_headers: &["content-type", "client-id", "request-time", "signature"],
        ..signed(
            "antom",
            &ANTOM,
            "json:/notifyType json:/paymentRequestId",
            (
                200,
                "application/json",
                r#"{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}"#,
            ),
        )
    },
    Preset {
        forward_headers: &["content-type", "x-pingplusplus-signature"],
        ..signed("pingpp", &PINGPP, "json:/id", SUCCESS)
    },
    Preset {
        forward_headers: &["content-type", "x-request-id", "x-signature"],
        ..signed(
            "mercadopago",
            &MERCADOPAGO,
            "query:data.id json:/action",
            SUCCESS,
        )
    },
    signed(
        "midtrans",
        &MIDTRANS,
        "json:/transaction_id json:/transaction_status",
        SUCCESS,
    ),
    Preset {
        forward_headers: &["content-type", "x-timestamp", "x-signature"],
        ..signed("airwallex", &AIRWALLEX, "json:/id", SUCCESS)
    },
    Preset {
        forward_headers: &[
            "content-type",
            "revolut-request-timestamp",
            "revolut-signature",
        ],
        ..signed(
            "revolut",
            &REVOLUT,
            "json:/event json:/order_id",
            (204, "text/plain", ""),
        )
    },
    Preset {
        forward_headers: &[
            "content-type",
            "paypal-transmission-id",
            "paypal-transmission-time",
            "paypal-transmission-sig",
            "paypal-auth-algo",
            "paypal-cert-url",
        ],
        ..signed("paypal", &PAYPAL, "json:/id", SUCCESS)
    },
];

"""The providers' SDKs of Python: a line of JSON in (sdk, headers, body in base64, keys), a line with true or false out."""

import base64
import hmac
import json
import sys
import urllib.parse


def stripe_(headers, body, keys):
    import stripe

    stripe.WebhookSignature.verify_header(body.decode(), headers["stripe-signature"], keys["secret"], 300)
    return True


def standardwebhooks_(headers, body, keys):
    from standardwebhooks.webhooks import Webhook

    Webhook(keys["secret"]).verify(body, headers)
    return True


def svix_(headers, body, keys):
    from svix.webhooks import Webhook

    Webhook(keys["secret"]).verify(body, headers)
    return True


def razorpay_(headers, body, keys):
    import razorpay

    client = razorpay.Client(auth=("id", "secret"))
    return client.utility.verify_webhook_signature(body.decode(), headers["x-razorpay-signature"], keys["secret"])


def square_(headers, body, keys):
    from square.utils.webhooks_helper import verify_signature

    return verify_signature(
        request_body=body.decode(),
        signature_header=headers["x-square-hmacsha256-signature"],
        signature_key=keys["secret"],
        notification_url=keys["url"],
    )


def adyen_(headers, body, keys):
    from Adyen.util import is_valid_hmac_notification

    items = json.loads(body)["notificationItems"]
    # It takes the signature out of what it is given.
    return len(items) > 0 and all(
        is_valid_hmac_notification(item["NotificationRequestItem"], keys["secret"]) for item in items
    )


def wechatpayv3_(headers, body, keys):
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from wechatpayv3.utils import rsa_verify

    # What its core does, without the certificates that it would fetch.
    if headers["wechatpay-serial"] != keys["serial"]:
        return False
    return rsa_verify(
        headers["wechatpay-timestamp"],
        headers["wechatpay-nonce"],
        body.decode(),
        headers["wechatpay-signature"],
        load_pem_public_key(keys["public"].encode()),
    )


def wechatpy_(headers, body, keys):
    import xmltodict
    from wechatpy.pay.utils import _check_signature, calculate_signature_hmac

    data = xmltodict.parse(body)["xml"]
    if data.get("sign_type") == "HMAC-SHA256":
        sign = data.pop("sign")
        return hmac.compare_digest(sign, calculate_signature_hmac(data, keys["secret"]))
    return _check_signature(data, keys["secret"])


# As Django and Flask read a form: && has nothing between it, and a name without = has no value.
def form(body):
    return dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))


def alipay_sdk_python(headers, body, keys):
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: F401, its own dependency
    from alipay.aop.api.util.SignatureUtils import get_sign_content, verify_with_rsa

    fields = form(body)
    sign = fields.pop("sign")
    kind = fields.pop("sign_type", "RSA2")
    if kind != "RSA2":
        return False
    return verify_with_rsa(keys["bare"], get_sign_content(fields).encode(), sign)


def python_alipay_sdk(headers, body, keys):
    from alipay import AliPay

    client = AliPay(
        appid="1",
        app_notify_url=None,
        app_private_key_string=keys["private"],
        alipay_public_key_string=keys["public"],
        sign_type="RSA2",
    )
    fields = form(body)
    return client.verify(fields, fields.pop("sign"))


SDKS = {
    "stripe (Python)": stripe_,
    "standardwebhooks (Python)": standardwebhooks_,
    "svix (Python)": svix_,
    "razorpay (Python)": razorpay_,
    "squareup (Python)": square_,
    "Adyen (Python)": adyen_,
    "wechatpayv3 (Python)": wechatpayv3_,
    "wechatpy (Python)": wechatpy_,
    "alipay-sdk-python (Python)": alipay_sdk_python,
    "python-alipay-sdk (Python)": python_alipay_sdk,
}

for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = SDKS[asked["sdk"]](asked["headers"], base64.b64decode(asked["body"]), asked["keys"])
        verdict = answer is not False and answer is not None
        why = ""
    except (ImportError, AttributeError, NameError) as error:  # a change of the SDK's names is no verdict
        verdict, why = None, repr(error)
    except Exception as error:
        verdict, why = False, f"{type(error).__name__}: {error}"
    print(json.dumps({"verdict": verdict, "why": why[:200]}), flush=True)

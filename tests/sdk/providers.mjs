// The providers: how each signs a callback, and what its SDKs say of one. Genuine callbacks are signed here, by the providers'
// documents, except where an SDK can sign.
import { createHash, createHmac, createSign, createVerify, generateKeyPairSync } from 'node:crypto';
import querystring from 'node:querystring';

import HmacValidatorModule from '@adyen/api-library/lib/src/utils/hmacValidator.js';
import * as octokit from '@octokit/webhooks-methods';
import { Paddle } from '@paddle/paddle-node-sdk';
import '@shopify/shopify-api/adapters/node';
import { shopifyApi, ApiVersion } from '@shopify/shopify-api';
import { AlipaySdk } from 'alipay-sdk';
import Razorpay from 'razorpay';
import { WebhooksHelper } from 'square';
import { Webhook as StandardWebhook } from 'standardwebhooks';
import Stripe from 'stripe';
import { Webhook as SvixWebhook } from 'svix';
import Tenpay from 'tenpay';
import axiosPlugin from 'wechatpay-axios-plugin';
import WxPay from 'wechatpay-node-v3';

const HmacValidator = HmacValidatorModule.default ?? HmacValidatorModule;
const { Formatter, Hash, Rsa, Transformer } = axiosPlugin;

const SECRET = 'whsec-like_secret-0123456789';
const WHSEC = `whsec_${Buffer.from('a secret of 24 bytes ...').toString('base64')}`;
const HEX_KEY = '44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056';
const URL_OF_SQUARE = 'https://pay.example/square/till-7';
const SERIAL = '5157F09EFDC096DE15EBE81A47057A7232F1B8E1';
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const PUBLIC = rsa.publicKey.export({ type: 'spki', format: 'pem' });
const BARE = rsa.publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
const PRIVATE = rsa.privateKey.export({ type: 'pkcs1', format: 'pem' });

const now = () => Math.floor(Date.now() / 1000);
const mac = (key, text, encoding, digest = 'sha256') => createHmac(digest, key).update(text).digest(encoding);
const rsaSign = (text) => createSign('RSA-SHA256').update(text).sign(rsa.privateKey, 'base64');
const text = (callback) => callback.body.toString('utf8');
const quoted = JSON.stringify;

/** A JSON event with what bodies have in them. */
function event(random) {
  return Buffer.from(JSON.stringify({
    id: `evt_${random.below(1e9)}`,
    event_id: `e-${random.below(1e9)}`,
    amount: random.below(1e6),
    note: random.text(),
    data: { object: { nested: [random.text(), null, true, -1.5e3] } },
  }, null, random.pick([0, 0, 2])));
}

/** Every Python SDK of these, through the helper process. */
const python = (names, keys) => Object.fromEntries(names.map((name) => [
  `${name} (Python)`,
  (callback, { judge }) => judge(`${name} (Python)`, callback, keys),
]));

const stripe = new Stripe('sk_test_x');
const paddle = new Paddle('x', { logLevel: 'none' });
const shopify = shopifyApi({
  apiKey: 'key', apiSecretKey: SECRET, scopes: [], hostName: 'shop.example', apiVersion: Object.values(ApiVersion)[0],
  isEmbeddedApp: false, isTesting: true, logger: { log() {} },
});
const alipay = new AlipaySdk({ appId: '1', privateKey: PRIVATE, alipayPublicKey: BARE, keyType: 'PKCS1' });
const adyen = new HmacValidator();
const wxpay = Object.create(WxPay.prototype ?? WxPay.default.prototype);
wxpay.fetchCertificates = async () => {}; // it would ask WeChat Pay for keys that it does not know
(WxPay.default ?? WxPay).certificates = { [SERIAL]: PUBLIC };

const WECHAT_FIELDS = (random) => ({
  appid: 'wx2421b1c4370ec43b',
  ...(random.below(2) && { attach: random.text() }),
  bank_type: 'CFT',
  cash_fee: String(random.below(1e5)),
  ...(random.below(3) === 0 && { coupon_count: '1', coupon_fee_0: '10', coupon_id_0: '10000', coupon_fee: '10' }),
  ...(random.below(4) === 0 && { device_info: '' }),
  fee_type: 'CNY',
  is_subscribe: random.pick(['Y', 'N']),
  mch_id: '10000100',
  nonce_str: mac('x', String(random.below(1e9)), 'hex').slice(0, 32),
  openid: 'oUpF8uMEb4qRXf22hE3X68TekukE',
  out_trade_no: `till-7_${random.below(1e9)}`,
  result_code: 'SUCCESS',
  return_code: 'SUCCESS',
  ...(random.below(2) && { return_msg: 'OK' }),
  time_end: '20261128133045',
  total_fee: String(random.below(1e5)),
  trade_type: 'JSAPI',
  transaction_id: `42000${random.below(1e9)}`,
});

const sorted = (fields, skipsEmpty) => Object.keys(fields).sort()
  .filter((name) => !(skipsEmpty && fields[name] === '')).map((name) => `${name}=${fields[name]}`).join('&');

function wechatV2(random, fields = WECHAT_FIELDS(random)) {
  const kind = random.pick(['MD5', 'MD5', 'HMAC-SHA256', '']);
  const all = kind ? { ...fields, sign_type: kind } : fields;
  const signed = `${sorted(all, true)}&key=${SECRET}`;
  all.sign = (kind === 'HMAC-SHA256' ? mac(SECRET, signed, 'hex') : createHash('md5').update(signed).digest('hex')).toUpperCase();
  const element = ([name, value]) => random.below(3)
    ? `<${name}><![CDATA[${value}]]></${name}>`
    : `<${name}>${value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')}</${name}>`;
  return { headers: [['Content-Type', 'text/xml']], body: Buffer.from(`<xml>${Object.entries(all).map(element).join('\n')}</xml>`) };
}

const ALIPAY_FIELDS = (random) => ({
  app_id: '2021005199606982',
  auth_app_id: '2021005199606982',
  ...(random.below(2) && { body: random.text() }),
  ...(random.below(2) ? { buyer_id: '2088102116773037' } : { buyer_open_id: '099luGU2ef8yeC95' }),
  buyer_pay_amount: '0.02',
  charset: 'UTF-8',
  fund_bill_list: '[{"amount":"0.02","fundChannel":"COUPON"}]',
  gmt_create: '2026-11-28 10:00:00',
  gmt_payment: '2026-11-28 10:00:01',
  invoice_amount: random.pick(['0.00', '']),
  notify_id: `2025${random.below(1e9)}`,
  notify_time: '2026-11-28 10:00:02',
  notify_type: 'trade_status_sync',
  out_trade_no: `till-7_${random.below(1e9)}`,
  ...(random.below(2) && { passback_params: random.text() }),
  point_amount: '0.00',
  receipt_amount: '0.02',
  seller_id: '2088070256235011',
  subject: random.text(),
  total_amount: '0.02',
  trade_no: `202510${random.below(1e9)}`,
  trade_status: 'TRADE_SUCCESS',
  version: '1.0',
});

const plus = (value) => encodeURIComponent(value).replaceAll('%20', '+');

function alipayNotice(random, fields = ALIPAY_FIELDS(random)) {
  const sign = rsaSign(sorted(fields, false)); // Alipay signs empty values that it sends
  const all = Object.entries(fields);
  all.push(['sign_type', 'RSA2'], ['sign', sign]);
  const body = all.map(([name, value]) => `${name}=${plus(value)}`).join('&');
  return { headers: [['Content-Type', 'application/x-www-form-urlencoded; charset=utf-8']], body: Buffer.from(body) };
}

function adyenItem(random) {
  const item = {
    additionalData: {},
    amount: { currency: 'EUR', value: random.below(1e6) },
    eventCode: 'AUTHORISATION',
    eventDate: '2026-11-28T10:00:00+01:00',
    merchantAccountCode: 'TestMerchant',
    merchantReference: `till-7_${random.text().replaceAll(/[^ -~]/g, '')}`,
    ...(random.below(2) && { originalReference: '7914073251449896' }),
    pspReference: `79140732${random.below(1e8)}`,
    success: random.pick(['true', 'false']),
    reason: random.text(),
  };
  const signed = [item.pspReference, item.originalReference ?? '', item.merchantAccountCode, item.merchantReference,
    item.amount.value, item.amount.currency, item.eventCode, item.success].join(':');
  item.additionalData.hmacSignature = mac(Buffer.from(HEX_KEY, 'hex'), signed, 'base64');
  return { NotificationRequestItem: item };
}

const json = ['Content-Type', 'application/json'];

const standard = (prefix) => (random) => {
  const body = event(random);
  const id = `msg_${random.below(1e9)}`;
  const at = now() - random.below(250);
  const key = Buffer.from(WHSEC.slice(6), 'base64');
  const sign = `v1,${mac(key, `${id}.${at}.${body}`, 'base64')}`;
  const list = random.pick([sign, `v1,AAAA ${sign}`, `${sign} v1a,xxxx`]);
  return { headers: [json, [`${prefix}-id`, id], [`${prefix}-timestamp`, String(at)], [`${prefix}-signature`, list]], body };
};

export const PROVIDERS = [
  {
    preset: 'stripe',
    route: `secrets = [${quoted(SECRET)}]`,
    signature: 'stripe-signature',
    genuine(random) {
      const body = event(random);
      const at = now() - random.below(250);
      const header = stripe.webhooks.generateTestHeaderString({ payload: body.toString(), secret: SECRET, timestamp: at });
      return { headers: [json, ['Stripe-Signature', random.pick([header, `${header},v0=00`, `${header},v1=00`])]], body };
    },
    timed: (random, at) => {
      const body = event(random);
      const header = stripe.webhooks.generateTestHeaderString({ payload: body.toString(), secret: SECRET, timestamp: at });
      return { headers: [json, ['Stripe-Signature', header]], body };
    },
    sdks: {
      stripe: (callback) => !!stripe.webhooks.constructEvent(callback.body, callback.get('stripe-signature'), SECRET),
      ...python(['stripe'], { secret: SECRET }),
    },
  },
  ...[['standard-webhooks', 'webhook', StandardWebhook, 'standardwebhooks'], ['svix', 'svix', SvixWebhook, 'svix']].map(
    ([preset, prefix, Webhook, name]) => ({
      preset,
      route: `secrets = [${quoted(WHSEC)}]`,
      signature: `${prefix}-signature`,
      genuine: standard(prefix),
      sdks: {
        [name]: (callback) => new Webhook(WHSEC).verify(callback.body, callback.map) !== undefined,
        ...python([name], { secret: WHSEC }),
      },
    }),
  ),
  {
    preset: 'paddle',
    route: `secrets = [${quoted(SECRET)}]\ntolerance = "5s"`, // its SDK's own limit
    signature: 'paddle-signature',
    genuine(random) {
      const body = event(random);
      const at = now();
      return { headers: [json, ['Paddle-Signature', `ts=${at};h1=${mac(SECRET, `${at}:${body}`, 'hex')}`]], body };
    },
    sdks: { '@paddle/paddle-node-sdk': (callback) => paddle.webhooks.isSignatureValid(text(callback), SECRET, callback.get('paddle-signature')) },
  },
  {
    preset: 'square',
    route: `secrets = [${quoted(SECRET)}]\nurl = "https://pay.example/square/{id}"`,
    signature: 'x-square-hmacsha256-signature',
    genuine(random) {
      const body = event(random);
      return { headers: [json, ['x-square-hmacsha256-signature', mac(SECRET, URL_OF_SQUARE + body, 'base64')]], body };
    },
    sdks: {
      square: (callback) => WebhooksHelper.verifySignature({
        requestBody: text(callback), signatureHeader: callback.get('x-square-hmacsha256-signature'), signatureKey: SECRET,
        notificationUrl: URL_OF_SQUARE,
      }),
      ...python(['squareup'], { secret: SECRET, url: URL_OF_SQUARE }),
    },
  },
  {
    preset: 'shopify',
    route: `secrets = [${quoted(SECRET)}]`,
    signature: 'x-shopify-hmac-sha256',
    genuine(random) {
      const body = event(random);
      const headers = [json, ['X-Shopify-Hmac-Sha256', mac(SECRET, body, 'base64')], ['X-Shopify-Topic', 'orders/paid'],
        ['X-Shopify-Shop-Domain', 'a.myshopify.com'], ['X-Shopify-API-Version', '2026-10'], ['X-Shopify-Webhook-Id', 'w-1']];
      return { headers, body };
    },
    sdks: {
      '@shopify/shopify-api': async (callback) => (await shopify.webhooks.validate({
        rawBody: text(callback), rawRequest: { headers: callback.map, method: 'POST', url: '/' }, rawResponse: {},
      })).valid,
    },
  },
  {
    preset: 'razorpay',
    route: `secrets = [${quoted(SECRET)}]`,
    signature: 'x-razorpay-signature',
    genuine(random) {
      const body = event(random);
      return { headers: [json, ['X-Razorpay-Signature', mac(SECRET, body, 'hex')]], body };
    },
    sdks: {
      razorpay: (callback) => Razorpay.validateWebhookSignature(text(callback), callback.get('x-razorpay-signature'), SECRET),
      ...python(['razorpay'], { secret: SECRET }),
    },
  },
  {
    preset: 'github',
    route: `secrets = [${quoted(SECRET)}]`,
    signature: 'x-hub-signature-256',
    genuine(random) {
      const body = event(random);
      return { headers: [json, ['X-Hub-Signature-256', `sha256=${mac(SECRET, body, 'hex')}`]], body };
    },
    sdks: { '@octokit/webhooks-methods': (callback) => octokit.verify(SECRET, text(callback), callback.get('x-hub-signature-256')) },
  },
  {
    preset: 'adyen',
    route: `secrets = [${quoted(HEX_KEY)}]`,
    genuine(random) {
      const notificationItems = Array.from({ length: 1 + random.below(2) }, () => adyenItem(random));
      return { headers: [json], body: Buffer.from(JSON.stringify({ live: 'false', notificationItems })) };
    },
    sdks: {
      '@adyen/api-library': (callback) => {
        const items = JSON.parse(text(callback)).notificationItems;
        return items.length > 0 && items.every((item) => adyen.validateHMAC(item.NotificationRequestItem, HEX_KEY));
      },
      ...python(['Adyen'], { secret: HEX_KEY }),
    },
  },
  {
    preset: 'adyen-platform',
    route: `secrets = [${quoted(HEX_KEY)}]`,
    signature: 'hmacsignature',
    genuine(random) {
      const body = event(random);
      return { headers: [json, ['HmacSignature', mac(Buffer.from(HEX_KEY, 'hex'), body, 'base64')]], body };
    },
    sdks: { '@adyen/api-library': (callback) => adyen.validateHMACSignature(HEX_KEY, callback.get('hmacsignature'), text(callback)) },
  },
  {
    preset: 'wechatpay-v2',
    route: `secrets = [${quoted(SECRET)}]`,
    genuine: (random) => wechatV2(random),
    changes: {
      'fields in another order': (random, body) => `<xml>${body.slice(5, -6).split(/(?<=>)\n(?=<)/).reverse().join('')}</xml>`,
      'a field twice': (random, body) => body.replace('</xml>', random.pick(['<total_fee>1</total_fee></xml>', '<appid>x</appid></xml>'])),
      'an empty field more': (random, body) => body.replace('</xml>', '<x></x></xml>'),
      'a field more': (random, body) => body.replace('</xml>', '<x>1</x></xml>'),
      'another sign_type': (random, body) => body.replace(/MD5|HMAC-SHA256/, random.pick(['md5', 'SM3', 'HMAC-SHA256', 'MD5'])),
      'sign in lower case': (random, body) => body.replace(/[0-9A-F]{32,64}(?=(]]>)?<\/sign>)/, (sign) => sign.toLowerCase()),
      'two fields are one': (random, body) => body.replace(/(]]>)?<\/cash_fee>\s*<fee_type>(<!\[CDATA\[)?/, '&amp;fee_type='),
      'one field is two': (random, body) => body.replace(/(\]\]>)?<\/attach>/, '$1</attach><attaci>1</attaci>'),
      nested: (random, body) => body.replace('<total_fee>', '<total_fee><x/>'),
    },
    sdks: {
      'wechatpay-axios-plugin': (callback) => {
        const { sign, ...data } = Transformer.toObject(text(callback));
        return Hash.equals(Hash.sign(data.sign_type ?? 'MD5', data, SECRET), sign);
      },
      tenpay: async (callback) => !!(await Tenpay.init({ appid: 'wx2421b1c4370ec43b', mchid: '10000100', partnerKey: SECRET })
        ._parse(text(callback), 'middleware_pay')),
      ...python(['wechatpy'], { secret: SECRET }),
    },
  },
  {
    preset: 'wechatpay-v3',
    route: `keys = [{ serial = "${SERIAL}", key = ${quoted(PUBLIC)} }]`,
    signature: 'wechatpay-signature',
    genuine(random) {
      const body = event(random);
      const at = String(now() - random.below(250));
      const nonce = `n${random.below(1e9)}`;
      const headers = [json, ['Wechatpay-Timestamp', at], ['Wechatpay-Nonce', nonce], ['Wechatpay-Serial', SERIAL],
        ['Wechatpay-Signature', rsaSign(`${at}\n${nonce}\n${body}\n`)], ['Wechatpay-Signature-Type', 'WECHATPAY2-SHA256-RSA2048']];
      return { headers, body };
    },
    sdks: {
      'wechatpay-node-v3': (callback) => wxpay.verifySign({
        timestamp: callback.get('wechatpay-timestamp'), nonce: callback.get('wechatpay-nonce'), body: text(callback),
        serial: callback.get('wechatpay-serial'), signature: callback.get('wechatpay-signature'), apiSecret: 'x',
      }),
      'wechatpay-axios-plugin': (callback) => callback.get('wechatpay-serial') === SERIAL && Rsa.verify(
        Formatter.joinedByLineFeed(callback.get('wechatpay-timestamp'), callback.get('wechatpay-nonce'), text(callback)),
        callback.get('wechatpay-signature'), PUBLIC,
      ),
      ...python(['wechatpayv3'], { serial: SERIAL, public: PUBLIC }),
    },
  },
  {
    preset: 'alipay',
    route: `keys = [${quoted(PUBLIC)}]`,
    genuine: (random) => alipayNotice(random),
    changes: {
      'fields in another order': (random, body) => body.split('&').reverse().join('&'),
      'a field twice': (random, body) => random.pick([`${body}&total_amount=1`, `total_amount=1&${body}`]),
      'an empty field more': (random, body) => `${body}&x=`,
      'a field more': (random, body) => `${body}&x=1`,
      'without sign_type': (random, body) => body.replace('&sign_type=RSA2', ''),
      'another sign_type': (random, body) => body.replace('sign_type=RSA2', random.pick(['sign_type=RSA', 'sign_type=rsa2', 'sign_type='])),
      'two fields are one': (random, body) => body.replace('&notify_type=', '%26notify_type%3D'),
      'one field is two': (random, body) => body.replace('&gmt_create=', '&gmt_a=1&gmt_create='),
      'other escapes': (random, body) => body.replaceAll('_', '%5F').replaceAll('+', '%20'),
    },
    sdks: {
      'alipay-sdk': (callback) => alipay.checkNotifySignV2(querystring.parse(text(callback))),
      ...python(['alipay-sdk-python', 'python-alipay-sdk'], { public: PUBLIC, bare: BARE, private: PRIVATE }),
    },
  },
];

/** Whether the public key that the run made is used at all: a change to nothing must not pass. */
export const selfTest = () => createVerify('RSA-SHA256').update('x').verify(rsa.publicKey, rsaSign('x'), 'base64');

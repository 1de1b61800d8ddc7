// Where the relay's verdict may be another than an SDK's, and why. Each has a condition of its own, so that no other difference
// hides behind it. In every one of them that the relay refuses, the bytes are not what the provider sent.
import querystring from 'node:querystring';

import { XMLValidator } from 'fast-xml-parser';

/** What decoders make of a base64 that has more in it than base64: Node.js ends at =, Python reads on. */
const decoded = (text) => [text ?? '', (text ?? '').replaceAll(/[^A-Za-z0-9+/]/g, '')]
  .map((one) => Buffer.from(one, 'base64').toString('hex'));

const isUtf8 = ({ body }) => Buffer.from(body.toString()).equals(body);

/** Whether a strict reader would take it: the validator lets unknown <!, control characters and text beside elements pass. */
const isXml = ({ body }) => XMLValidator.validate(body.toString()) === true
  && !/<!(?!\[CDATA\[)|[\x00-\x08\x0b\x0c\x0e-\x1f]|<\/\w+>[^<\s]/.test(body.toString());

/** Whether a value begins or ends with a space. */
const hasSpaces = ({ body }) => />(<!\[CDATA\[)?\s+[^<\s]|[^>\s]\s+(]]>)?<\/|]]>\s+<\/|>\s+<!\[CDATA/.test(body.toString());

const signatureHeader = {
  'adyen-platform': 'hmacsignature', 'wechatpay-v3': 'wechatpay-signature', 'standard-webhooks': 'webhook-signature',
  svix: 'svix-signature',
};

/** The signatures in a callback, and its body without them. */
function parts(preset, { headers, body }) {
  const text = body.toString();
  if (preset === 'alipay') {
    const { sign, ...rest } = querystring.parse(text);
    return { signatures: [sign], rest: JSON.stringify(rest) };
  }
  if (preset === 'adyen') {
    const signatures = [...text.matchAll(/"hmacSignature":"([^"]*)"/g)].map(([, value]) => value);
    return { signatures, rest: text.replaceAll(/"hmacSignature":"[^"]*"/g, '') };
  }
  const name = signatureHeader[preset];
  const header = headers.find(([its]) => its.toLowerCase() === name)?.[1] ?? '';
  const others = headers.filter(([its]) => its.toLowerCase() !== name);
  const signatures = header.split(' ').map((item) => item.replace(/^v1,/, ''));
  return { signatures, rest: JSON.stringify(others) + text };
}

/** Whether the signature is the genuine one to a decoder of base64 that passes over what is no base64. */
function isTheSameLeniently({ preset, callback }) {
  if (!callback.genuine) return false;
  const [before, after] = [parts(preset, callback.genuine), parts(preset, callback)];
  const all = before.signatures.flatMap(decoded);
  const same = after.signatures.flatMap(decoded).some((signature) => all.includes(signature));
  return before.rest === after.rest && same;
}

const DIFFERENCES = [
  {
    why: 'a header that is there twice is refused; Node.js joins the two, and the SDK takes one',
    when: ({ accepts, callback }) => !accepts && callback.kind === 'header twice',
  },
  {
    why: 'a time further ahead than the tolerance is refused; the SDK looks for old ones only',
    when: ({ sdk, accepts, callback }) => !accepts && sdk.startsWith('stripe') && callback.kind === 'too new',
  },
  {
    why: 'a signature is read as a whole; the SDK cuts it at = or ,',
    when: ({ sdk, accepts, callback }) => !accepts && /^(stripe|@paddle|standardwebhooks|svix)/.test(sdk) && callback.kind === 'header longer',
  },
  {
    why: 'an item that is no signature is passed over; the SDK reads no further',
    when: ({ sdk, accepts, callback }) => accepts && /^(standardwebhooks|svix) \(Python\)/.test(sdk) && callback.kind === 'header changed',
  },
  {
    why: 'base64 is read strictly; the SDK passes over missing padding, stray bits and characters that are none',
    when: (one) => !one.accepts && isTheSameLeniently(one),
  },
  {
    why: 'topic, shop, version and id are not signed; the relay forwards those that are there, the SDK wants all',
    when: ({ preset, accepts, callback }) => accepts && preset === 'shopify' && /^header/.test(callback.kind),
  },
  {
    why: 'text that is not UTF-8, in a field that is not signed, is the backend\'s to see; the SDK does not read on',
    when: (one) => one.accepts && one.sdk === 'Adyen (Python)' && !isUtf8(one.callback),
  },
  {
    why: 'a name that is not UTF-8 is refused; the SDK puts another character in its place',
    when: (one) => !one.accepts && one.sdk === '@adyen/api-library' && !isUtf8(one.callback),
  },
  {
    why: 'a document that is not well-formed XML is refused; the SDK reads it all the same',
    when: ({ preset, accepts, callback }) => !accepts && preset === 'wechatpay-v2' && !isXml(callback),
  },
  {
    why: 'spaces at the ends of a value are signed; the SDK takes them away, and refuses a genuine notice that has them',
    when: ({ preset, accepts, callback }) => accepts && preset === 'wechatpay-v2' && hasSpaces(callback),
  },
  {
    why: 'spaces at the ends of a value are signed; the SDK takes them away, and accepts them where they were not',
    when: ({ preset, accepts, callback }) => !accepts && preset === 'wechatpay-v2' && hasSpaces(callback),
  },
  {
    why: 'sign_type says HMAC-SHA256 or the signature is as long as one; the SDK takes MD5 for what it does not know',
    when: ({ preset, accepts, callback }) => accepts && preset === 'wechatpay-v2' && callback.kind === 'another sign_type',
  },
  {
    why: 'a message that is cut anew into other fields is refused; the SDK sees the same text',
    when: ({ accepts, callback }) => !accepts && callback.kind === 'two fields are one',
  },
  {
    why: 'a field that is there twice is refused; the SDK is given one of them',
    when: ({ accepts, callback }) => !accepts && callback.kind === 'a field twice',
  },
  {
    why: 'sign_type must be RSA2 or not there; the SDK takes an empty one for RSA2',
    when: ({ sdk, accepts, callback }) => !accepts && sdk === 'alipay-sdk' && /&sign_type=&/.test(callback.body.toString()),
  },
];

export function reasonFor(one) {
  return DIFFERENCES.find(({ when }) => when(one))?.why;
}

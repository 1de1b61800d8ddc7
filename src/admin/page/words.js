// The page's words, in the browser's language: Chinese, or else English.
const asked = (navigator.languages && navigator.languages.length ? navigator.languages : [navigator.language || "en"])
  .map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => tag === "zh" || tag === "en");

/** `zh` or `en`. */
export const language = asked || "en";

const english = {
  skip: "Skip to content", notifications: "Notifications", backends: "Backends", health: "Health", logout: "Log out",
  login: "Log in", token: "Token", login_words: "The token is admin.token of relay.toml, or one of admin.read_tokens.",
  wrong_token: "This is no token of this relay.", too_many: "Too many wrong tokens; try again in a minute.",
  no_answer: "The relay does not answer: {0}", other_site: "The relay takes this address for another site's. Open the page by its IP address or as localhost.",
  search: "Id, event, order number or backend", any_state: "Any state", backend: "Backend", route: "Route", event: "Event", state: "State",
  time: "Time", took: "To ACK", clear: "Clear", taken: "Taken", id: "Id", node: "Node", tries: "Tries", size: "Size", verified: "Signature",
  not_verified: "not checked", why: "Reason", none_found: "Nothing found.", none_yet: "No notification yet.", no_more: "No older ones: what is no longer in the outbox is known for the latest 16,384 of each node.",
  loading: "Loading …", searching: "Looking further back …", shown: "{0} shown", pending_n: "{0} pending", dead_n: "{0} dead", more: "Older ones",
  node_silent: "Node {0}: {1}. Its notifications are not in this list.", node_unknown: "Node {0} is on the bus, but none of admin.nodes leads to it: its notifications are not in this list.",
  back: "All notifications", again: "Deliver again", drop: "Drop", cancel: "Cancel",
  again_title: "Deliver this notification again?", again_1: "{0} gets it as soon as it is connected, with the same id. It must recognise what it has had already.",
  drop_title: "Drop this notification for good?", drop_1: "It is deleted. The provider was told ok and will not send it again, so {0} will never get it.",
  drop_yes: "Yes, drop it", again_yes: "Deliver again", again_done: "It will be delivered again.", drop_done: "It was dropped.", in_hand: "A session has it in hand just now; nothing was changed.",
  nothing_changed: "Nothing was changed: it is not in the outbox any more.", not_found: "No node that answered knows {0}: it is too long ago, or it was never here.",
  facts: "Details", timeline: "What happened", content: "What the provider sent", headers: "Request line and headers", body: "Body", no_head: "This route forwards no headers (forward_headers), so none are kept.",
  no_body: "The body is empty.", not_kept: "It is not kept any more: delivered notifications stay in memory up to admin.keep_bodies; the outbox has what is not acknowledged.",
  damaged: "The disk has changed it; there is nothing that could be shown.", no_right: "This login may not see headers and bodies (bodies = true in admin.read_tokens).",
  laid_out: "Laid out", text: "Text", bytes: "Bytes", charset: "Charset", save: "Save", copied: "Copied.", copy: "Copy",
  as_json: "JSON", as_xml: "XML", as_form: "Form", from_type: "from Content-Type", from_xml: "from the XML declaration", from_field: "from the field charset", guessed: "guessed",
  cut: "The first {0} of {1} are shown; Save has all.", field: "Field", value: "Value", connected: "connected", since: "Connected since", credit: "Credit", in_flight: "In flight", waiting_n: "Queued", last_answer: "Last answer",
  pending: "Pending", dead: "Dead", disconnect: "Disconnect", away: "not connected", disconnect_title: "Disconnect {0}?", disconnect_1: "Its connection to {0} is closed. What is in flight on it may be delivered a second time. A client connects again by itself after some seconds.",
  disconnect_yes: "Disconnect", disconnect_done: "{0} was told to go.", no_backends: "No backend is connected, and nothing waits for one.", waits_for_absent: "waits for a backend that is not connected; is the id in notify_url right?",
  never_was_here: "pending for a backend that was never here since this node started; is the id in notify_url right?", is_known: "{0} is known.", never_here_n: "{0} for a backend that was never here",
  ready: "ready", not_ready: "not ready", uptime: "Up for", bus: "Bus", outbox: "Outbox", oldest: "oldest pending", no_outbox: "none", version: "Version", memory: "Memory", connections: "Providers' connections", sessions: "Sessions", files: "Descriptors free",
  per_minute: "Notifications a minute, last hour", ack_time: "Time to ACK, last hour", median: "median", p99: "99 %", most: "most {0}", ok_now: "delivered", later: "stored", failed: "answered fail", dup: "duplicate",
  refusals: "Refusals since the start", reason: "Reason", count: "Count", last: "Last", where: "Where", no_refusals: "Nothing was refused.", warnings: "Warnings of the configuration", no_warnings: "None.", ago: "{0} ago",
  kind_http: "HTTP", kind_signature: "signature", kind_session: "backend", up: "up", down: "DOWN: {0}", never: "–", within: "≤ {0}", beyond: "> 5 s",
  s_waiting: "waiting", s_pending: "pending", s_done: "delivered later", s_dead: "dead", s_delivered: "delivered", s_stored: "left the outbox", s_duplicate: "duplicate", s_refused: "refused", s_offline: "offline", s_timeout: "no ACK", s_busy: "busy", s_draining: "stopping", s_unreachable: "bus down", s_dropped: "dropped",
  l_waiting: "The provider waits: {0} has not acknowledged it yet.", l_pending: "In the outbox; it is delivered once {0} takes it.", l_done: "{0} acknowledged it, after it had been stored.", l_dead: "Given up. {0} did not get it.", l_dropped: "An operator dropped it. {0} did not acknowledge it.",
  l_delivered: "{0} acknowledged it.", l_stored: "It was stored, and is not in the outbox any more: acknowledged later, or dropped.", l_duplicate: "A retry of the provider; {0} got it, or will get it, by an earlier one.", l_refused: "{0} refused it; the provider was told to send it again.",
  l_offline: "{0} was not connected; the provider was told to send it again.", l_timeout: "{0} did not acknowledge it in time; the provider was told to send it again.", l_busy: "Too much waits for {0}; the provider was told to send it again.",
  l_draining: "The node was stopping; the provider was told to send it again.", l_unreachable: "The bus was down; the provider was told to send it again.",
  w_received: "Taken from the provider", w_verified: "Signature checked", w_sent: "Sent to the backend", w_acked: "Acknowledged by the backend", w_nacked: "Refused by the backend", w_answered: "Provider answered", w_stored: "Stored in the outbox", w_dead: "Given up: a dead letter", w_retried: "To be delivered again", w_dropped: "Dropped", w_forgotten: "Its event was forgotten: a retry is delivered",
  w_unanswered: "The backend kept it too long", w_returned: "It had not reached the backend", w_lost: "The connection ended before an ACK", w_busy: "The backend had no room", w_unreachable: "The bus was down", w_omitted: "Left out here",
};

const chinese = {
  skip: "跳到内容", notifications: "通知", backends: "后端", health: "运行状况", logout: "退出登录",
  login: "登录", token: "令牌", login_words: "令牌是 relay.toml 里的 admin.token，或 admin.read_tokens 中的一个。",
  wrong_token: "这不是本中继的令牌。", too_many: "错误令牌太多，请一分钟后再试。",
  no_answer: "中继没有应答：{0}", other_site: "中继认为这个地址属于别的网站。请用 IP 地址或 localhost 打开本页。",
  search: "编号、事件、订单号或后端", any_state: "全部状态", backend: "后端", route: "路由", event: "事件", state: "状态",
  time: "时间", took: "确认用时", clear: "清除", taken: "接收时间", id: "编号", node: "节点", tries: "投递次数", size: "大小", verified: "签名",
  not_verified: "未检查", why: "原因", none_found: "没有找到。", none_yet: "还没有通知。", no_more: "没有更早的了：已不在发件箱中的通知，每个节点只记得最近 16,384 条。",
  loading: "载入中……", searching: "正在往前查找……", shown: "显示 {0} 条", pending_n: "待投递 {0}", dead_n: "死信 {0}", more: "更早的",
  node_silent: "节点 {0}：{1}。列表中没有它的通知。", node_unknown: "节点 {0} 在总线上，但 admin.nodes 中没有它的地址：列表中没有它的通知。",
  back: "全部通知", again: "重新投递", drop: "丢弃", cancel: "取消",
  again_title: "重新投递这条通知？", again_1: "{0} 一连上就会收到它，编号不变。后端必须能认出已经处理过的通知。",
  drop_title: "永久丢弃这条通知？", drop_1: "它会被删除。支付平台已得到成功应答，不会再发送，所以 {0} 永远收不到它。",
  drop_yes: "确定丢弃", again_yes: "重新投递", again_done: "将重新投递。", drop_done: "已丢弃。", in_hand: "会话正在处理它，未作改动。",
  nothing_changed: "未作改动：它已不在发件箱中。", not_found: "有应答的节点都不知道 {0}：时间太久，或从未到达这里。",
  facts: "详情", timeline: "经过", content: "支付平台发来的内容", headers: "请求行和请求头", body: "正文", no_head: "这条路由不转发请求头（forward_headers），所以没有保存。",
  no_body: "正文为空。", not_kept: "内容已不再保存：已投递的通知在内存中最多保留 admin.keep_bodies；未确认的在发件箱中。",
  damaged: "磁盘上的内容已损坏，无法显示。", no_right: "当前登录无权查看请求头和正文（admin.read_tokens 中的 bodies = true）。",
  laid_out: "结构", text: "文本", bytes: "字节", charset: "字符集", save: "保存", copied: "已复制。", copy: "复制",
  as_json: "JSON", as_xml: "XML", as_form: "表单", from_type: "取自 Content-Type", from_xml: "取自 XML 声明", from_field: "取自 charset 字段", guessed: "推测",
  cut: "只显示前 {0}，共 {1}；“保存”可得全部。", field: "字段", value: "值", connected: "已连接", since: "连接时间", credit: "信用", in_flight: "处理中", waiting_n: "排队", last_answer: "上次应答",
  pending: "待投递", dead: "死信", disconnect: "断开", away: "未连接", disconnect_title: "断开 {0}？", disconnect_1: "它与 {0} 的连接会被关闭。正在处理的通知可能会再投递一次。客户端几秒后会自行重连。",
  disconnect_yes: "断开", disconnect_done: "已通知 {0} 离开。", no_backends: "没有后端连接，也没有等待投递的通知。", waits_for_absent: "等待的后端没有连接；notify_url 里的编号对吗？",
  never_was_here: "待投递给本节点启动以来从未连接过的后端；notify_url 里的编号对吗？", is_known: "已知的后端有 {0}。", never_here_n: "{0} 条的后端从未连接过",
  ready: "就绪", not_ready: "未就绪", uptime: "已运行", bus: "总线", outbox: "发件箱", oldest: "最早待投递", no_outbox: "无", version: "版本", memory: "内存", connections: "支付平台连接", sessions: "会话", files: "剩余描述符",
  per_minute: "最近一小时每分钟通知数", ack_time: "最近一小时确认用时", median: "中位数", p99: "99 %", most: "最多 {0}", ok_now: "已投递", later: "已存储", failed: "应答失败", dup: "重复",
  refusals: "启动以来的拒绝", reason: "原因", count: "次数", last: "最近", where: "位置", no_refusals: "没有拒绝过。", warnings: "配置警告", no_warnings: "无。", ago: "{0}前",
  kind_http: "HTTP", kind_signature: "签名", kind_session: "后端", up: "正常", down: "中断：{0}", never: "–", within: "≤ {0}", beyond: "> 5 s",
  s_waiting: "等待确认", s_pending: "待投递", s_done: "稍后送达", s_dead: "死信", s_delivered: "已送达", s_stored: "已离开发件箱", s_duplicate: "重复", s_refused: "被拒绝", s_offline: "未连接", s_timeout: "未确认", s_busy: "繁忙", s_draining: "正在停止", s_unreachable: "总线中断", s_dropped: "已丢弃",
  l_waiting: "支付平台在等待：{0} 尚未确认。", l_pending: "在发件箱中；{0} 接收后即送达。", l_done: "存储之后，{0} 确认了它。", l_dead: "已放弃。{0} 没有收到它。", l_dropped: "操作员丢弃了它。{0} 没有确认收到。",
  l_delivered: "{0} 已确认。", l_stored: "曾被存储，现已不在发件箱中：后来被确认，或被丢弃。", l_duplicate: "支付平台的重发；{0} 已经或将会收到较早的那一条。", l_refused: "{0} 拒绝了它；已让支付平台重发。",
  l_offline: "{0} 没有连接；已让支付平台重发。", l_timeout: "{0} 没有及时确认；已让支付平台重发。", l_busy: "等待 {0} 的通知太多；已让支付平台重发。",
  l_draining: "节点正在停止；已让支付平台重发。", l_unreachable: "总线中断；已让支付平台重发。",
  w_received: "收到支付平台的通知", w_verified: "签名已验证", w_sent: "已发给后端", w_acked: "后端已确认", w_nacked: "后端拒绝", w_answered: "已应答支付平台", w_stored: "已存入发件箱", w_dead: "已放弃：死信", w_retried: "将重新投递", w_dropped: "已丢弃", w_forgotten: "已忘记该事件，重试将再次投递",
  w_unanswered: "后端处理超时", w_returned: "没有到达后端", w_lost: "确认之前连接断开", w_busy: "后端没有余量", w_unreachable: "总线中断", w_omitted: "此处省略",
};

const words = language === "zh" ? chinese : english;

/** The words called `key`, with {0}, {1} filled in. */
export function t(key, ...values) {
  const text = words[key] ?? english[key] ?? key.replace(/^[a-z]_/, "");
  return text.replace(/\{(\d)\}/g, (_, at) => values[at]);
}

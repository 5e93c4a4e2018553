/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * events.h: telling user space what becomes of flows, while somebody listens. A
 * listener puts a ring into `event_ring` and says in `event_control` which kinds it
 * wants; without one, an event costs the programs one look at that row, and no
 * event is raised for a packet that merely continues its flow.
 */
#pragma once

#include "packet.h"

/* The order is shared with Go (maps/events.go) and only ever grows at the end. */
enum event_kind {
	EVENT_NEW,     /* a flow was admitted */
	EVENT_END,     /* a connection was closed by both sides or reset */
	EVENT_DROP,    /* a packet went no further */
	EVENT_REFUSE,  /* a packet or a socket was told no */
	EVENT_CONNECT, /* a process of the node asked for a service and was given a backend */
};

/*
 * The tuple runs from who began the flow to who really answers; `asked` is the service
 * address in between, all zero if there is none. Both families fill the same struct;
 * an IPv4 address is the first word of its field.
 */
struct event {
	__u64 time; /* ns of the monotonic clock */
	__be32 src[4];
	__be32 dst[4];
	__be32 asked[4];
	__be16 sport;
	__be16 dport;
	__be16 asked_port;
	__u16 length; /* bytes of the frame, 0 where there is none */
	__u8 kind;
	__u8 reason; /* enum drop_reason */
	__u8 hook;
	__u8 family; /* 4 or 6 */
	__u8 proto;
	__u8 tcp_flags;
	__u16 flow; /* enum flow_flags */
};
_Static_assert(sizeof(struct event) == 72, "shared with Go");

/* No map has it as its value, so nothing else would carry the type to the generated Go. */
const struct event *event_type __attribute__((unused));

/* What the listener wants; all zero without one. */
struct listener {
	__u32 kinds;  /* bits 1 << event_kind */
	__u32 budget; /* events per CPU and window; the others are lost, and counted */
};
_Static_assert(sizeof(struct listener) == 8, "shared with Go");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct listener);
} event_control SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* the listener makes its own, as large as it needs */
};

/* The ring exists only while somebody reads it: it is the memory that events cost. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct ring);
} event_ring SEC(".maps");

#define EVENT_WINDOW_BITS 27 /* a window is 2^27 ns, 134 ms */

/*
 * The scratch is for a tuple: programs and the functions they call share 512 bytes of stack, and
 * this is the place with room. Packet programs of one CPU do not interrupt each other.
 */
struct event_cpu {
	__u64 lost; /* since the map was made */
	__u32 window;
	__u32 used;
	__u32 scratch[10];
};
_Static_assert(sizeof(struct event_cpu) == 56, "shared with Go");
_Static_assert(sizeof(struct tuple) <= 40, "a tuple fits the scratch");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event_cpu);
} event_cpus SEC(".maps");

static __always_inline int event_wanted(__u8 kind)
{
	__u32 zero = 0;
	struct listener *c = bpf_map_lookup_elem(&event_control, &zero);

	return c && (c->kinds >> (kind & 31)) & 1;
}

/* event_allowed charges one event to this CPU's window. */
static __always_inline int event_allowed(struct event_cpu *cpu, __u64 time)
{
	__u32 zero = 0, window = time >> EVENT_WINDOW_BITS;
	struct listener *c = bpf_map_lookup_elem(&event_control, &zero);

	if (cpu->window != window) {
		cpu->window = window;
		cpu->used = 0;
	}
	return c && cpu->used++ < c->budget;
}

/* event_begin reserves room in the ring; whoever gets an event must submit it. */
static __always_inline struct event *event_begin(enum event_kind kind, __u8 reason, __u8 hook)
{
	__u32 zero = 0;
	void *ring = bpf_map_lookup_elem(&event_ring, &zero);
	struct event_cpu *cpu = bpf_map_lookup_elem(&event_cpus, &zero);
	__u64 time = bpf_ktime_get_ns();
	struct event *e;

	if (!ring || !cpu)
		return 0;
	if (!event_allowed(cpu, time)) {
		cpu->lost++;
		return 0;
	}
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e) {
		cpu->lost++;
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time = time;
	e->kind = kind;
	e->reason = reason;
	e->hook = hook;
	e->family = FAMILY;
	return e;
}

static __always_inline void event_ends(struct event *e, const struct tuple *t, int reversed)
{
	__builtin_memcpy(e->src, reversed ? &t->daddr : &t->saddr, ADDR_LEN);
	__builtin_memcpy(e->dst, reversed ? &t->saddr : &t->daddr, ADDR_LEN);
	e->sport = reversed ? t->dport : t->sport;
	e->dport = reversed ? t->sport : t->dport;
	e->proto = t->proto;
}

/*
 * event_asked finds the service address in between: where the answers of a tuple are translated
 * back to one, that address is what the originator asked for.
 */
static __always_inline void event_asked(struct event *e)
{
	__u32 zero = 0;
	struct event_cpu *cpu = bpf_map_lookup_elem(&event_cpus, &zero);
	struct tuple *answer;
	struct nat *n;

	if (!cpu)
		return;
	answer = (struct tuple *)cpu->scratch;
	__builtin_memcpy(&answer->saddr, e->dst, ADDR_LEN);
	__builtin_memcpy(&answer->daddr, e->src, ADDR_LEN);
	answer->sport = e->dport;
	answer->dport = e->sport;
	answer->proto = e->proto;
	answer->pad[0] = answer->pad[1] = answer->pad[2] = 0;
	n = bpf_map_lookup_elem(&nats, answer);
	if (!n || n->to_real)
		return;
	__builtin_memcpy(e->asked, &n->saddr, ADDR_LEN);
	e->asked_port = n->sport;
	/* The source, too, may have been translated: a pod that reaches itself. */
	__builtin_memcpy(e->src, &n->daddr, ADDR_LEN);
	e->sport = n->dport;
}

/*
 * The functions that raise events are global, so that the verifier looks at each once and not along
 * every path that leads there; for the same reason they ask themselves whether anybody listens.
 * What they are given it takes for possibly NULL.
 */
__noinline int event_flow(const struct tuple *t, __u8 kind, __u16 flow, __u8 tcp_flags, int reversed)
{
	struct event *e;

	if (!t || !event_wanted(kind))
		return 0;
	e = event_begin(kind, DROP_NONE, AT_UNKNOWN);
	if (!e)
		return 0;
	event_ends(e, t, reversed);
	event_asked(e);
	e->flow = flow;
	e->tcp_flags = tcp_flags;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* For what is told where it is decided, because there more is known than at the program's entry. */
__noinline int event_denied(const struct tuple *t, __u8 kind, __u8 reason, __u8 hook, __u8 tcp_flags)
{
	struct event *e;

	if (!t || !event_wanted(kind))
		return 0;
	e = event_begin(kind, reason, hook);
	if (!e)
		return 0;
	event_ends(e, t, 0);
	event_asked(e);
	e->tcp_flags = tcp_flags;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* event_read_ports reads what a dropped packet has of a transport header, behind l3. */
static __always_inline void event_read_ports(struct __sk_buff *skb, struct event *e, __u32 l4)
{
	__u8 h[14]; /* up to and including the TCP flags */

	if (e->proto == IPPROTO_TCP && !bpf_skb_load_bytes(skb, l4, h, 14))
		e->tcp_flags = h[13];
	else if ((e->proto != IPPROTO_UDP && e->proto != IPPROTO_SCTP) || bpf_skb_load_bytes(skb, l4, h, 4))
		return;
	__builtin_memcpy(&e->sport, h, 4);
}

/* What cannot be read stays zero: a packet may be dropped because it is cut short. */
static __always_inline void event_read(struct __sk_buff *skb, struct event *e)
{
#if FAMILY == 4
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return;
	e->src[0] = ip.saddr;
	e->dst[0] = ip.daddr;
	e->proto = ip.protocol;
	if (!(ip.frag_off & bpf_htons(0x3fff)))
		event_read_ports(skb, e, ETH_HLEN + ip.ihl * 4);
#else
	if (bpf_skb_load_bytes(skb, ETH_HLEN + L3_SADDR, e->src, ADDR_LEN) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + L3_SADDR + ADDR_LEN, e->dst, ADDR_LEN) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &e->proto, 1))
		return;
	event_read_ports(skb, e, ETH_HLEN + L3_LEN);
#endif
}

/* A dropped packet is read once more: what was known of it is not known where it ends. */
__noinline int event_drop(struct __sk_buff *skb, __u8 reason, __u8 hook)
{
	struct event *e;

	if (!event_wanted(EVENT_DROP))
		return 0;
	e = event_begin(EVENT_DROP, reason, hook);
	if (!e)
		return 0;
	event_read(skb, e);
	event_asked(e);
	e->length = skb->len;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* A socket may have no port of its own yet. asked is all zero when nothing was translated. */
__noinline int event_socket(const struct tuple *t, const struct slot *asked, __u8 kind, __u8 reason)
{
	struct event *e;

	if (!t || !asked || !event_wanted(kind))
		return 0;
	e = event_begin(kind, reason, AT_SOCKET);
	if (!e)
		return 0;
	event_ends(e, t, 0);
	__builtin_memcpy(e->asked, &asked->addr, ADDR_LEN);
	e->asked_port = asked->port;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* event_new: the packet opened a flow. */
static __always_inline void event_new(const struct packet *p, __u16 flow)
{
	event_flow(&p->real, EVENT_NEW, flow, p->tcp_flags, 0);
}

/* event_end: the packet ended its connection. What is told runs in the originator's direction. */
static __always_inline void event_end(const struct packet *p, int from_originator, __u16 flow)
{
	event_flow(&p->real, EVENT_END, flow, p->tcp_flags, !from_originator);
}

/* event_refuse: p is about to be answered with a no; it is still as it came. */
static __always_inline void event_refuse(const struct packet *p, enum drop_reason why, enum hook at)
{
	event_denied(&p->t, EVENT_REFUSE, why, at, p->tcp_flags);
}

/*
 * settle turns what a handler decided into what the kernel is told. Every packet
 * program ends here: a drop is counted and reported where the hook is known.
 */
static __always_inline int settle(struct __sk_buff *skb, enum hook at, int verdict)
{
	enum drop_reason why = verdict >> REASON_SHIFT;

	if (verdict < 1 << REASON_SHIFT)
		return verdict;
	count_at(why, at);
	event_drop(skb, why, at);
	return TC_ACT_SHOT;
}

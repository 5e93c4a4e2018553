/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * reset.h: what becomes of a packet that policy does not let pass. The first of a flow is
 * dropped. A connection that was allowed until now is ended for both ends at once, by
 * resets that carry not one byte of what the segment carried.
 */
#pragma once

#include "balance.h"

struct tcp_header {
	__be16 sport, dport;
	__be32 seq, ack;
	__u8 offset, flags; /* offset: length in words, in the upper half */
	__be16 window, csum, urgent;
};
_Static_assert(sizeof(struct tcp_header) == 20, "RFC 9293");

/*
 * A checksum that the device shall finish covers only the pseudo header. There is no field
 * that says so, but the helper that adjusts checksums leaves such a one alone.
 */
static __always_inline int csum_left_to_device(struct __sk_buff *skb, __u16 at)
{
	__u16 before, after;

	if (bpf_skb_load_bytes(skb, at, &before, 2) || bpf_l4_csum_replace(skb, at, 0, 1, 2) ||
	    bpf_skb_load_bytes(skb, at, &after, 2) || bpf_skb_store_bytes(skb, at, &before, 2, 0))
		return 0;
	return before == after;
}

static __always_inline __u64 pseudo_header_sum(const struct tuple *t)
{
#if FAMILY == 4
	struct {
		struct addr saddr, daddr;
		__be32 rest;
	} pseudo = { t->saddr, t->daddr, bpf_htonl(IPPROTO_TCP << 16 | sizeof(struct tcp_header)) };
#else
	struct {
		struct addr saddr, daddr;
		__be32 length, next;
	} pseudo = { t->saddr, t->daddr, bpf_htonl(sizeof(struct tcp_header)), bpf_htonl(IPPROTO_TCP) };
#endif

	return (__u32)bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
}

/* reset_shrink cuts everything behind a TCP header without options, super-packets as well. */
static __always_inline int reset_shrink(struct __sk_buff *skb, const struct packet *p)
{
	if (bpf_skb_change_tail(skb, p->l4 + sizeof(struct tcp_header), 0))
		return -1;
#if FAMILY == 4
	__be16 length = bpf_htons(p->l4 - ETH_HLEN + sizeof(struct tcp_header)), was;
	const __u32 at = ETH_HLEN + offsetof(struct iphdr, tot_len);

	return bpf_skb_load_bytes(skb, at, &was, 2) ||
	       bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), was, length, 2) ||
	       bpf_skb_store_bytes(skb, at, &length, 2, BPF_F_RECOMPUTE_CSUM);
#else
	__be16 length = bpf_htons(p->l4 - ETH_HLEN - L3_LEN + sizeof(struct tcp_header));

	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, payload_len), &length, 2, BPF_F_RECOMPUTE_CSUM);
#endif
}

/* reset_store makes the shrunk packet a reset of the tuple t. */
static __always_inline int reset_store(struct __sk_buff *skb, struct packet *p, const struct tuple *t,
				       struct tcp_header *h, int by_device)
{
	__u64 sum = pseudo_header_sum(t);

	h->sport = t->sport;
	h->dport = t->dport;
	h->offset = 5 << 4;
	h->window = h->csum = h->urgent = 0;
	h->csum = by_device ? ~csum_fold(sum) : csum_fold((__u32)bpf_csum_diff(0, 0, (__be32 *)h, sizeof(*h), (__u32)sum));
	if (replace_addr(skb, 0, 0, ETH_HLEN + L3_SADDR, &p->t.saddr, &t->saddr) ||
	    replace_addr(skb, 0, 0, ETH_HLEN + L3_SADDR + ADDR_LEN, &p->t.daddr, &t->daddr) ||
	    bpf_skb_store_bytes(skb, p->l4, h, sizeof(*h), BPF_F_RECOMPUTE_CSUM))
		return -1;
	p->t = *t;
	return 0;
}

static __always_inline int swap_macs(struct __sk_buff *skb)
{
	__u8 mac[12], swapped[12];

	if (bpf_skb_load_bytes(skb, 0, mac, 12))
		return -1;
	__builtin_memcpy(swapped, mac + 6, 6);
	__builtin_memcpy(swapped + 6, mac, 6);
	return bpf_skb_store_bytes(skb, 0, swapped, 12, 0);
}

/*
 * nat_answer finds what an answer that is about to arrive as `back` leaves with: every
 * translation has a row for either direction. Returns 0 if there is none.
 */
static __always_inline int nat_answer(const struct tuple *back, struct tuple *answer)
{
	struct nat *n = bpf_map_lookup_elem(&nats, back);

	*answer = *back;
	if (!n)
		return 0;
	nat_apply(n, back, answer);
	return 1;
}

/*
 * reset_both sends a reset back to where the segment came from, in the name of whom it was
 * sent to, and makes the segment itself a reset for the other end. A
 * reset is not answered. Returns 0 when the packet shall go on its way.
 */
static __always_inline int reset_both(struct __sk_buff *skb, struct packet *p)
{
	struct tuple back, t;
	struct tcp_header was, h = {};
	int by_device;

	if (bpf_skb_load_bytes(skb, p->l4, &was, sizeof(was)))
		return -1;
	tuple_reverse(&p->t, &back);
	by_device = csum_left_to_device(skb, p->l4 + TCP_CSUM);
	if (reset_shrink(skb, p))
		return -1;
	if ((was.flags & (TCP_ACK | TCP_RST)) == TCP_ACK) {
		nat_answer(&back, &t);
		h.seq = was.ack;
		h.flags = TCP_RST;
		if (reset_store(skb, p, &t, &h, by_device) || swap_macs(skb))
			return -1;
		bpf_clone_redirect(skb, skb->ifindex, 0);
		if (swap_macs(skb))
			return -1;
	}
	h.seq = was.seq;
	h.ack = was.flags & TCP_ACK ? was.ack : 0;
	h.flags = TCP_RST | (was.flags & TCP_ACK);
	p->tcp_flags = h.flags;
	tuple_reverse(&back, &t);
	return reset_store(skb, p, &t, &h, by_device);
}

/*
 * A translation made for a packet that is then denied belongs to no flow: nobody else
 * would remove it.
 */
static __always_inline void nat_forget(const struct packet *p)
{
	struct tuple back, answer;

	tuple_reverse(&p->real, &back);
	if (!nat_answer(&back, &answer))
		return;
	bpf_map_delete_elem(&nats, &back);
	tuple_reverse(&answer, &back);
	bpf_map_delete_elem(&nats, &back);
}

static __noinline enum step deny_packet(struct __sk_buff *skb, struct packet *p, enum drop_reason why)
{
	if (why == REFUSED_REVOKED)
		return reset_both(skb, p) ? STEP_VERDICT : STEP_AS_IS;
	nat_forget(p);
	return STEP_VERDICT;
}

/* deny: STEP_AS_IS says that the packet has become the reset that ends its connection, and goes on. */
static __always_inline enum step deny(struct __sk_buff *skb, struct packet *p, enum drop_reason why, enum hook at)
{
	count_at(why, at);
	event_denied(&p->real, why == REFUSED_REVOKED ? EVENT_REFUSE : EVENT_DROP, why, at, p->tcp_flags);
	return deny_packet(skb, p, why);
}

/* An ICMP error about a flow that was admitted is part of it. */
static __always_inline int icmp_related(struct __sk_buff *skb, const struct packet *p)
{
	struct quoted q;
	struct tuple key;

	if (!parse_quote(skb, p, &q))
		return 0;
	ct_key(&q.answer, &key);
	return bpf_map_lookup_elem(&ct, &key) != 0;
}

/*
 * judge_stray is policy for what belongs to no flow: errors, fragments, protocols without ports. It
 * returns why the packet must not pass, or DROP_NONE.
 */
static __noinline int judge_stray(struct __sk_buff *skb, const struct packet *p, int translated, enum origin origin)
{
	int why = policy_judge(&p->t, origin);

	if (!why || (p->kind == KIND_ICMP_ERROR && (translated || icmp_related(skb, p))))
		return 0;
	return why;
}

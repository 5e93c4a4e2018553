/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * refuse.h: saying no at once. A silent drop makes the client wait for minutes;
 * TCP gets a reset and everything else an ICMP "port unreachable", both in the name
 * of the address that was asked.
 */
#pragma once

#include "config.h"
#include "events.h"

/* Where the answer goes: back into the pod, or out of the device it came in by. */
enum answer_to { ANSWER_POD, ANSWER_WIRE };

static __always_inline int answer(struct __sk_buff *skb, enum answer_to to)
{
	__u8 mac[12], swapped[12];

	if (bpf_skb_load_bytes(skb, 0, mac, 12))
		return drop(DROP_REWRITE);
	__builtin_memcpy(swapped, mac + 6, 6);
	__builtin_memcpy(swapped + 6, mac, 6);
	if (bpf_skb_store_bytes(skb, 0, swapped, 12, 0))
		return drop(DROP_REWRITE);
	if (to == ANSWER_POD)
		return bpf_redirect_peer(skb->ifindex, 0);
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int swap_addresses(struct __sk_buff *skb, const struct tuple *t)
{
	/* Checksums are sums: exchanging two addends does not change them. */
	return bpf_skb_store_bytes(skb, ETH_HLEN + L3_SADDR, t->daddr.word, ADDR_LEN, 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + L3_SADDR + ADDR_LEN, t->saddr.word, ADDR_LEN, 0);
}

static __always_inline int replace_word(struct __sk_buff *skb, __u16 l4, __u16 at, __be32 from, __be32 to)
{
	return bpf_l4_csum_replace(skb, l4 + TCP_CSUM, from, to, 4) ||
	       bpf_skb_store_bytes(skb, l4 + at, &to, 4, 0);
}

/*
 * The reset keeps the length and the options of the segment it answers: every change
 * then is a difference that the kernel can apply to a finished checksum
 * and to one left to the device alike.
 */
static __always_inline int refuse_tcp(struct __sk_buff *skb, struct packet *p, enum answer_to to)
{
	struct {
		__be16 ports[2];
		__be32 seq, ack, rest; /* rest: header length, flags, window */
	} h;
	__u32 rest, length, seq = 0, ack = 0, flags = TCP_RST;

	if (p->tcp_flags & TCP_RST || skb->gso_segs > 1)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
		return drop(DROP_MALFORMED);
	rest = bpf_ntohl(h.rest);
	if (p->tcp_flags & TCP_ACK) {
		seq = h.ack;
	} else {
		length = p->l4_len - (rest >> 28) * 4;
		length += !!(p->tcp_flags & TCP_SYN) + !!(p->tcp_flags & TCP_FIN);
		ack = bpf_htonl(bpf_ntohl(h.seq) + length);
		flags |= TCP_ACK;
	}
	rest = (rest & 0xf0000000) | flags << 16;
	__be16 ports[2] = { h.ports[1], h.ports[0] };

	if (replace_word(skb, p->l4, 4, h.seq, seq) || replace_word(skb, p->l4, 8, h.ack, ack) ||
	    replace_word(skb, p->l4, 12, h.rest, bpf_htonl(rest)) ||
	    bpf_skb_store_bytes(skb, p->l4, ports, 4, 0) || swap_addresses(skb, &p->t))
		return drop(DROP_REWRITE);
	return answer(skb, to);
}

#define QUOTE (L3_LEN + 8) /* what an ICMP error must repeat of its cause */

struct icmp_error {
	__u8 type, code;
	__be16 csum;
	__be32 unused;
	__u8 quote[QUOTE];
};

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

#if FAMILY == 4
static __always_inline int store_l3(struct __sk_buff *skb, const struct packet *p, __u16 payload)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(L3_LEN + payload),
		.ttl = 64,
		.protocol = IPPROTO_ICMP,
		.saddr = p->t.daddr.word[0],
		.daddr = p->t.saddr.word[0],
	};

	ip.check = csum_fold(bpf_csum_diff(0, 0, (__be32 *)&ip, sizeof(ip), 0));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

static __always_inline __s64 icmp_seed(const struct packet *p)
{
	return 0;
}
#else
static __always_inline int store_l3(struct __sk_buff *skb, const struct packet *p, __u16 payload)
{
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = bpf_htons(payload),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = 64,
	};

	__builtin_memcpy(&ip.saddr, &p->t.daddr, ADDR_LEN);
	__builtin_memcpy(&ip.daddr, &p->t.saddr, ADDR_LEN);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

static __always_inline __s64 icmp_seed(const struct packet *p)
{
	struct {
		struct addr saddr, daddr;
		__be32 length, next;
	} pseudo = {
		.saddr = p->t.daddr,
		.daddr = p->t.saddr,
		.length = bpf_htonl(sizeof(struct icmp_error)),
		.next = bpf_htonl(IPPROTO_ICMPV6),
	};

	return bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
}
#endif

static __always_inline int refuse_datagram(struct __sk_buff *skb, struct packet *p, enum answer_to to)
{
	struct icmp_error e = { .type = ICMP_UNREACHABLE, .code = ICMP_PORT_UNREACHABLE };
	const int grow = L3_LEN + ICMP_HLEN;

	/* Never answer an error with an error, and quote only what fits the struct. */
	if (p->kind != KIND_FLOW || !has_ports(p->t.proto) || p->l4 != ETH_HLEN + L3_LEN)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, e.quote, QUOTE))
		return drop(DROP_MALFORMED);
	e.csum = csum_fold(bpf_csum_diff(0, 0, (__be32 *)&e, sizeof(e), icmp_seed(p)));
	if (bpf_skb_change_tail(skb, ETH_HLEN + QUOTE, 0) ||
	    bpf_skb_adjust_room(skb, grow, BPF_ADJ_ROOM_MAC, 0) ||
	    store_l3(skb, p, sizeof(e)) || bpf_skb_store_bytes(skb, ETH_HLEN + L3_LEN, &e, sizeof(e), 0))
		return drop(DROP_REWRITE);
	return answer(skb, to);
}

BORDER int refuse_packet(struct __sk_buff *skb, struct packet *p, enum answer_to to)
{
	/* A reset made of a fragment would be one; the first fragment of a datagram is answered. */
	if (!p || p->fragment == FRAGMENT_LATER || (p->fragment && p->t.proto == IPPROTO_TCP))
		return TC_ACT_SHOT;
	if (p->t.proto == IPPROTO_TCP)
		return refuse_tcp(skb, p, to);
	return refuse_datagram(skb, p, to);
}

static __always_inline int refuse(struct __sk_buff *skb, struct packet *p, enum answer_to to, enum drop_reason why)
{
	enum hook at = to == ANSWER_POD ? AT_FROM_POD : AT_FROM_EXT;

	count_at(why, at);
	event_refuse(p, why, at);
	return refuse_packet(skb, p, to);
}

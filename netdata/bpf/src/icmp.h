/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * icmp.h: carrying ICMP errors across a translation. Path MTU discovery and fast
 * failure depend on them. An error quotes the packet that caused it as it was on the
 * far side; sender and quote must be turned back into what the near side knows.
 */
#pragma once

#include "nat.h"

struct quoted {
	struct tuple answer; /* the quoted packet's tuple, reversed */
	__u16 l3;            /* offset of the quoted IP header */
	__u16 l4;
};

static __always_inline int parse_quote(struct __sk_buff *skb, const struct packet *p, struct quoted *q)
{
	struct tuple t = {};
	__be16 ports[2];

	q->l3 = p->l4 + ICMP_HLEN;
#if FAMILY == 4
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, q->l3, &ip, sizeof(ip)) || ip.ihl < 5)
		return 0;
	if (ip.frag_off & bpf_htons(0x1fff))
		return 0;
	t.saddr.word[0] = ip.saddr;
	t.daddr.word[0] = ip.daddr;
	t.proto = ip.protocol;
	q->l4 = q->l3 + ip.ihl * 4;
#else
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, q->l3, &ip, sizeof(ip)))
		return 0;
	__builtin_memcpy(&t.saddr, &ip.saddr, ADDR_LEN);
	__builtin_memcpy(&t.daddr, &ip.daddr, ADDR_LEN);
	t.proto = ip.nexthdr;
	q->l4 = q->l3 + L3_LEN;
#endif
	if (!has_ports(t.proto))
		return 0;
	if (bpf_skb_load_bytes(skb, q->l4, ports, sizeof(ports)))
		return 0;
	t.sport = ports[0];
	t.dport = ports[1];
	tuple_reverse(&t, &q->answer);
	return 1;
}

/*
 * The quote is payload to the outer checksum, so each change is applied to it as
 * well. Address and header checksum of a quoted IPv4 header cancel out.
 */
static __always_inline int requote_addr(struct __sk_buff *skb, const struct packet *p, const struct quoted *q,
					__u16 at, const struct addr *from, const struct addr *to)
{
	__s64 diff;

	if (addr_equal(from, to))
		return 0;
	diff = bpf_csum_diff((__be32 *)from->word, ADDR_LEN, (__be32 *)to->word, ADDR_LEN, 0);
#if FAMILY == 4
	if (bpf_l3_csum_replace(skb, q->l3 + offsetof(struct iphdr, check), 0, diff, 0))
		return -1;
#else
	if (bpf_l4_csum_replace(skb, p->l4 + ICMP_CSUM, 0, diff, 0))
		return -1;
#endif
	return bpf_skb_store_bytes(skb, at, to->word, ADDR_LEN, 0);
}

static __always_inline int requote_port(struct __sk_buff *skb, const struct packet *p, __u16 at, __be16 from, __be16 to)
{
	return replace_port(skb, p->l4 + ICMP_CSUM, 0, at, from, to);
}

/*
 * translate_icmp_error returns 1 after a translation, 0 when the quoted flow is not translated,
 * -1 when the packet could not be changed. p->t then holds the new outer addresses.
 */
BORDER int translate_icmp_error(struct __sk_buff *skb, struct packet *p, __u16 scope)
{
	struct quoted q;
	struct nat *n;

	if (!p || !parse_quote(skb, p, &q))
		return 0;
	n = bpf_map_lookup_elem(&nats, &q.answer);
	if (!n || !(n->scope & scope))
		return 0;

	struct nat to = *n;
	struct tuple *was = &q.answer;
	__u16 src = q.l3 + L3_SADDR, dst = src + ADDR_LEN;
	struct tuple outer = p->t;

	/* The quote runs against the answer: its source is the answer's destination. */
	if (requote_addr(skb, p, &q, src, &was->daddr, &to.daddr) ||
	    requote_addr(skb, p, &q, dst, &was->saddr, &to.saddr) ||
	    requote_port(skb, p, q.l4, was->dport, to.dport) ||
	    requote_port(skb, p, q.l4 + 2, was->sport, to.sport))
		return -1;
	/* A router speaks for itself; the far end speaks as the address that was asked. */
	if (addr_equal(&outer.saddr, &was->saddr))
		outer.saddr = to.saddr;
	outer.daddr = to.daddr;
	__u16 csum = FAMILY == 4 ? 0 : p->l4 + ICMP_CSUM;

	if (replace_addr(skb, csum, BPF_F_PSEUDO_HDR, ETH_HLEN + L3_SADDR, &p->t.saddr, &outer.saddr) ||
	    replace_addr(skb, csum, BPF_F_PSEUDO_HDR, ETH_HLEN + L3_SADDR + ADDR_LEN, &p->t.daddr, &outer.daddr))
		return -1;
	p->t = outer;
	return 1;
}

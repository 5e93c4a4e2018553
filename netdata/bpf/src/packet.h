/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* packet.h: reading a packet, and the two ways of sending it on. */
#pragma once

#include "drop.h"
#include "tables.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define TCP_CSUM 16
#define UDP_CSUM 6
#define SCTP_CSUM 8
#define SCTP_CHUNK 12
#define ICMP_CSUM 2
#define ICMP_ID 4
#define ICMP_HLEN 8

enum packet_kind {
	KIND_FLOW,       /* has a complete tuple */
	KIND_FRAGMENT,   /* part of a datagram whose first part was not seen: addresses only */
	KIND_ICMP_ERROR, /* quotes a packet of another flow */
	KIND_NO_PORTS,   /* a protocol whose flows cannot be told apart */
};

/* A later fragment has no transport header; its ports are those of the first one. */
enum fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct packet {
	struct tuple t;    /* as the packet is now */
	struct tuple real; /* as conntrack knows its flow */
	__u16 l4;       /* offset of the transport header from the start of the frame */
	__u16 l4_len;   /* bytes from there to the end of the IP packet */
	__u8 kind;
	__u8 tcp_flags; /* of SCTP: what the first chunk amounts to */
	__u8 icmp_type;
	__u8 fragment;
};

enum parse_result { PARSE_OK, PARSE_OTHER, PARSE_BAD };

static __always_inline int has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

/* Protocols that say where a connection begins and ends. */
static __always_inline int has_handshake(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_SCTP;
}

/* A segment that opens a connection. Every datagram may start a flow. */
static __always_inline int starts_flow(const struct packet *p)
{
	if (!has_handshake(p->t.proto))
		return 1;
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* What the first chunk of an SCTP packet does to its association, in the words of TCP. */
static __always_inline __u8 sctp_flags(__u8 chunk)
{
	switch (chunk) {
	case 1: /* INIT */
		return TCP_SYN;
	case 6:  /* ABORT */
	case 14: /* SHUTDOWN COMPLETE */
		return TCP_RST;
	case 7: /* SHUTDOWN */
	case 8: /* SHUTDOWN ACK */
		return TCP_FIN | TCP_ACK;
	default:
		return TCP_ACK;
	}
}

static __always_inline int parse_l4(struct __sk_buff *skb, struct packet *p)
{
	__u8 h[14]; /* up to and including the TCP flags */

	switch (p->t.proto) {
	case IPPROTO_TCP:
		if (p->l4_len < 20 || bpf_skb_load_bytes(skb, p->l4, h, 14))
			return PARSE_BAD;
		__builtin_memcpy(&p->t.sport, h, 4);
		p->tcp_flags = h[13];
		return PARSE_OK;
	case IPPROTO_SCTP:
		if (p->l4_len < SCTP_CHUNK || bpf_skb_load_bytes(skb, p->l4, h, 4))
			return PARSE_BAD;
		__builtin_memcpy(&p->t.sport, h, 4);
		h[0] = 0; /* DATA, which stands for all that begins and ends nothing */
		if (p->l4_len > SCTP_CHUNK && bpf_skb_load_bytes(skb, p->l4 + SCTP_CHUNK, h, 1))
			return PARSE_BAD;
		p->tcp_flags = sctp_flags(h[0]);
		return PARSE_OK;
	case IPPROTO_UDP:
		if (p->l4_len < 8 || bpf_skb_load_bytes(skb, p->l4, h, 4))
			return PARSE_BAD;
		__builtin_memcpy(&p->t.sport, h, 4);
		return PARSE_OK;
	case IPPROTO_ICMP_FAMILY:
		if (p->l4_len < ICMP_HLEN || bpf_skb_load_bytes(skb, p->l4, h, ICMP_HLEN))
			return PARSE_BAD;
		p->icmp_type = h[0];
		if (h[0] == ICMP_ECHO_REQUEST)
			__builtin_memcpy(&p->t.sport, h + ICMP_ID, 2);
		else if (h[0] == ICMP_ECHO_REPLY)
			__builtin_memcpy(&p->t.dport, h + ICMP_ID, 2);
#if FAMILY == 4
		else if (h[0] == 3 || h[0] == 11 || h[0] == 12)
			p->kind = KIND_ICMP_ERROR;
#else
		else if (h[0] < 128)
			p->kind = KIND_ICMP_ERROR;
#endif
		else
			p->kind = KIND_NO_PORTS;
		return PARSE_OK;
	default:
		p->kind = KIND_NO_PORTS;
		return PARSE_OK;
	}
}

/*
 * parse_in_place is parse_l4 for a packet whose headers lie where they can be read without a helper, as
 * most do. It returns 0 for any other.
 */
static __always_inline int parse_in_place(struct packet *p, const __u8 *h, const void *end)
{
	if (p->t.proto == IPPROTO_TCP && p->l4_len >= 20 && (void *)(h + 14) <= end) {
		__builtin_memcpy(&p->t.sport, h, 4);
		p->tcp_flags = h[13];
		return 1;
	}
	if (p->t.proto == IPPROTO_UDP && p->l4_len >= 8 && (void *)(h + 8) <= end) {
		__builtin_memcpy(&p->t.sport, h, 4);
		return 1;
	}
	return 0;
}

/*
 * parse_fragment gives all fragments of a datagram the ports of its flow, provided that the
 * first one comes first. The checksum of SCTP cannot be carried across a change of ports
 * without the whole packet, so its fragments are not told apart.
 */
static __always_inline int parse_fragment(struct __sk_buff *skb, struct packet *p, __be32 id, int later)
{
	struct fragment_key key = { .saddr = p->t.saddr, .daddr = p->t.daddr, .id = id, .proto = p->t.proto };
	struct fragment_ports ports, *first;

	p->kind = KIND_FRAGMENT;
	if (p->t.proto != IPPROTO_TCP && p->t.proto != IPPROTO_UDP && p->t.proto != IPPROTO_ICMP_FAMILY)
		return PARSE_OK;
	if (!later) {
		p->kind = KIND_FLOW;
		p->fragment = FRAGMENT_FIRST;
		if (parse_l4(skb, p) != PARSE_OK)
			return PARSE_BAD;
		ports.sport = p->t.sport;
		ports.dport = p->t.dport;
		if (p->kind == KIND_FLOW)
			bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
		return PARSE_OK;
	}
	p->fragment = FRAGMENT_LATER;
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first)
		return PARSE_OK;
	p->kind = KIND_FLOW;
	p->t.sport = first->sport;
	p->t.dport = first->dport;
	p->tcp_flags = p->t.proto == IPPROTO_TCP ? TCP_ACK : 0; /* begins and ends nothing */
	return PARSE_OK;
}

/*
 * parse reads addresses and ports. IP options are stepped over. Packets
 * that arrived through a tunnel or GRO may have short linear parts; they are
 * pulled once. p must be all zero.
 */
BORDER int parse(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (!p || skb->protocol != bpf_htons(ETH_P_FAMILY))
		return PARSE_OTHER;
	if (data + ETH_HLEN + L3_LEN > end) {
		if (bpf_skb_pull_data(skb, ETH_HLEN + L3_LEN))
			return PARSE_BAD;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + ETH_HLEN + L3_LEN > end)
			return PARSE_BAD;
	}
	int parsed;

#if FAMILY == 4
	struct iphdr *ip = data + ETH_HLEN;
	__u16 hlen = ip->ihl * 4;
	__u16 total = bpf_ntohs(ip->tot_len);

	/* A GSO super-packet of 64 KiB or more (BIG TCP) has no total length. */
	if (!total && skb->gso_size)
		total = 0xffff;
	else if (ETH_HLEN + total > skb->len)
		return PARSE_BAD;
	if (hlen < L3_LEN || total < hlen)
		return PARSE_BAD;
	p->t.saddr.word[0] = ip->saddr;
	p->t.daddr.word[0] = ip->daddr;
	p->t.proto = ip->protocol;
	p->l4 = ETH_HLEN + hlen;
	p->l4_len = total - hlen;
	if (ip->frag_off & bpf_htons(0x3fff)) /* more fragments, or an offset */
		parsed = parse_fragment(skb, p, ip->id, ip->frag_off & bpf_htons(0x1fff));
	else if (hlen == L3_LEN && parse_in_place(p, (__u8 *)(ip + 1), end))
		parsed = PARSE_OK;
	else
		parsed = parse_l4(skb, p);
#else
	struct ipv6hdr *ip = data + ETH_HLEN;

	__builtin_memcpy(&p->t.saddr, &ip->saddr, ADDR_LEN);
	__builtin_memcpy(&p->t.daddr, &ip->daddr, ADDR_LEN);
	p->t.proto = ip->nexthdr;
	p->l4 = ETH_HLEN + L3_LEN;
	p->l4_len = bpf_ntohs(ip->payload_len);
	if (!p->l4_len && skb->gso_size)
		p->l4_len = 0xffff;
	else if (ETH_HLEN + L3_LEN + p->l4_len > skb->len)
		return PARSE_BAD;
	if (ip->nexthdr == IPPROTO_FRAGMENT) {
		struct {
			__u8 next, reserved;
			__be16 offset; /* and, in the lowest bit, whether more follow */
			__be32 id;
		} f;

		if (p->l4_len < sizeof(f) || bpf_skb_load_bytes(skb, p->l4, &f, sizeof(f)))
			return PARSE_BAD;
		p->t.proto = f.next;
		p->l4 += sizeof(f);
		p->l4_len -= sizeof(f);
		parsed = parse_fragment(skb, p, f.id, f.offset & bpf_htons(0xfff8));
	} else if (parse_in_place(p, (__u8 *)(ip + 1), end)) {
		parsed = PARSE_OK;
	} else {
		parsed = parse_l4(skb, p);
	}
#endif
	if (parsed != PARSE_OK)
		return PARSE_BAD;
	p->real = p->t;
	return PARSE_OK;
}

/* hop_limit_dec does what a router does. It returns 0 when the packet has no hop left. */
static __always_inline int hop_limit_dec(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + ETH_HLEN + L3_LEN > end)
		return 0;
#if FAMILY == 4
	struct iphdr *ip = data + ETH_HLEN;
	__u32 sum = (__u32)ip->check + bpf_htons(0x0100);

	if (ip->ttl <= 1)
		return 0;
	ip->check = (__u16)(sum + (sum >= 0xffff));
	ip->ttl--;
#else
	struct ipv6hdr *ip = data + ETH_HLEN;

	if (ip->hop_limit <= 1)
		return 0;
	ip->hop_limit--;
#endif
	return 1;
}

/*
 * deliver hands a packet to a pod on this node straight from an ingress hook,
 * past the host's stack and past to_pod. Packets out of hops go to the
 * stack, which knows how to say so.
 */
static __always_inline int deliver(struct __sk_buff *skb, const struct endpoint *ep)
{
	/* Locally administered, and all host ends'. */
	const __u8 source[6] = { 0x02, 0xee, 0xee, 0xee, 0xee, 0xee };
	void *data, *end;

	if (!hop_limit_dec(skb))
		return PASS;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + ETH_HLEN > end)
		return drop(DROP_REWRITE);
	__builtin_memcpy(data, ep->mac, 6);
	__builtin_memcpy(data + 6, source, 6);
	return bpf_redirect_peer(ep->ifindex, 0);
}

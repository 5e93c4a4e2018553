/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * announce.h: answering who has an address of a load balancer, ARP for IPv4 and
 * neighbour discovery for IPv6. Done here, the answers do not stop while the agent is
 * away, and no interface needs the address.
 */
#pragma once

#include "packet.h"

static __always_inline int announce_answer(struct __sk_buff *skb, const __u8 mac[6], const __u8 asker[6])
{
	__u8 eth[12];

	__builtin_memcpy(eth, asker, 6);
	__builtin_memcpy(eth + 6, mac, 6);
	if (bpf_skb_store_bytes(skb, 0, eth, sizeof(eth), 0))
		return drop(DROP_REWRITE);
	return bpf_redirect(skb->ifindex, 0);
}

#if FAMILY == 4
struct arp {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 op;
	__u8 sender_mac[6], sender[4];
	__u8 target_mac[6], target[4];
};
_Static_assert(sizeof(struct arp) == 28, "as on the wire");

/* announce_arp answers a request for an announced address and leaves all else alone. */
static __always_inline int announce_arp(struct __sk_buff *skb)
{
	struct announcement *found;
	struct addr wanted;
	__u8 mac[6];
	struct arp a;

	if (skb->protocol != bpf_htons(ETH_P_ARP) || bpf_skb_load_bytes(skb, ETH_HLEN, &a, sizeof(a)))
		return PASS;
	if (a.hardware != bpf_htons(1) || a.protocol != bpf_htons(ETH_P_IP) || a.hardware_len != 6 ||
	    a.protocol_len != 4 || a.op != bpf_htons(1))
		return PASS;
	__builtin_memcpy(&wanted, a.target, sizeof(wanted));
	found = bpf_map_lookup_elem(&announced, &wanted);
	if (!found)
		return PASS;
	__builtin_memcpy(mac, found->mac, 6);
	__builtin_memcpy(a.target_mac, a.sender_mac, 6);
	__builtin_memcpy(a.target, a.sender, 4);
	__builtin_memcpy(a.sender_mac, mac, 6);
	__builtin_memcpy(a.sender, &wanted, 4);
	a.op = bpf_htons(2);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &a, sizeof(a), 0))
		return drop(DROP_REWRITE);
	return announce_answer(skb, mac, a.target_mac);
}
#else
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_SOURCE_MAC 1
#define ND_TARGET_MAC 2
#define ND_FLAGS bpf_htonl(0x60000000) /* solicited, override */

/* A solicitation with its sender's hardware address, and the answer to it. */
struct neighbour {
	__u8 type, code;
	__be16 csum;
	__be32 flags;
	struct addr target;
	__u8 option, option_len; /* in units of 8 bytes */
	__u8 mac[6];
};
_Static_assert(sizeof(struct neighbour) == 32, "as on the wire");

static __always_inline __u16 announce_csum(const struct ipv6hdr *ip, const struct neighbour *n)
{
	__be32 rest[2] = { bpf_htonl(sizeof(*n)), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 2 * ADDR_LEN, 0);

	sum = bpf_csum_diff(0, 0, rest, sizeof(rest), sum);
	sum = bpf_csum_diff(0, 0, (__be32 *)n, sizeof(*n), sum);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/*
 * announce_neighbour answers a solicitation for an announced address. One without its sender's
 * hardware address probes for a duplicate, or knows the way already: those are left alone.
 */
static __always_inline int announce_neighbour(struct __sk_buff *skb, const struct packet *p)
{
	struct announcement *found;
	struct neighbour n;
	struct ipv6hdr ip;
	__u8 mac[6], asker[6];

	if (p->icmp_type != ND_SOLICITATION || p->l4 != ETH_HLEN + L3_LEN || p->l4_len < sizeof(n) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || bpf_skb_load_bytes(skb, p->l4, &n, sizeof(n)))
		return PASS;
	/* Routers decrement it: what is not 255 came from somewhere else. */
	if (ip.hop_limit != 255 || n.option != ND_SOURCE_MAC || n.option_len != 1)
		return PASS;
	found = bpf_map_lookup_elem(&announced, &n.target);
	if (!found)
		return PASS;
	__builtin_memcpy(mac, found->mac, 6);
	__builtin_memcpy(asker, n.mac, 6);
	__builtin_memcpy(&ip.daddr, &ip.saddr, ADDR_LEN);
	__builtin_memcpy(&ip.saddr, &n.target, ADDR_LEN);
	ip.payload_len = bpf_htons(sizeof(n));
	n.type = ND_ADVERTISEMENT;
	n.flags = ND_FLAGS;
	n.option = ND_TARGET_MAC;
	__builtin_memcpy(n.mac, mac, 6);
	n.csum = 0;
	n.csum = announce_csum(&ip, &n);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) || bpf_skb_store_bytes(skb, p->l4, &n, sizeof(n), 0) ||
	    bpf_skb_change_tail(skb, ETH_HLEN + L3_LEN + sizeof(n), 0))
		return drop(DROP_REWRITE);
	return announce_answer(skb, mac, asker);
}
#endif

/* announce is called with what is not a flow; see handle_from_ext. */
BORDER int announce(struct __sk_buff *skb, const struct packet *p, int other)
{
	if (!p)
		return PASS;
#if FAMILY == 4
	return other ? announce_arp(skb) : PASS;
#else
	return other ? PASS : announce_neighbour(skb, p);
#endif
}

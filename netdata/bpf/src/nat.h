/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* nat.h: claiming a translation and applying it. */
#pragma once

#include "config.h"
#include "conntrack.h"
#include "sctp.h"

#define PORT_TRIES 16

static __always_inline void nat_apply(const struct nat *n, const struct tuple *t, struct tuple *out)
{
	out->saddr = n->saddr;
	out->daddr = n->daddr;
	out->sport = n->sport;
	out->dport = n->dport;
	out->proto = t->proto;
	out->pad[0] = out->pad[1] = out->pad[2] = 0;
}

static __always_inline void nat_row(struct nat *n, const struct tuple *t, __u16 scope, __u16 to_real)
{
	n->saddr = t->saddr;
	n->daddr = t->daddr;
	n->sport = t->sport;
	n->dport = t->dport;
	n->scope = scope;
	n->to_real = to_real;
}

static __always_inline int nat_same(const struct nat *a, const struct nat *b)
{
	return addr_equal(&a->saddr, &b->saddr) && addr_equal(&a->daddr, &b->daddr) &&
	       a->sport == b->sport && a->dport == b->dport;
}

/*
 * nat_claim reserves the answering direction of `want` for the flow `orig`. The
 * row itself is the reservation: whoever inserts it first owns the tuple. A
 * row left by a connection that has ended is taken over: at once if only this node's address was borrowed, of
 * which there is but one, and else when the connection is forgotten.
 */
static __always_inline int nat_claim(const struct tuple *orig, const struct tuple *want, __u16 scope, __u16 real_is_want,
				     struct nat *row, struct tuple *key)
{
	struct nat *old;

	tuple_reverse(orig, key);
	nat_row(row, key, scope, !real_is_want);
	tuple_reverse(want, key);
	old = bpf_map_lookup_elem(&nats, key);
	if (!old) {
		/* The same pair of sockets may also talk directly, untranslated. */
		if (real_is_want && (has_handshake(orig->proto) ? ct_known(want) : ct_live(want)))
			return 0;
		return !bpf_map_update_elem(&nats, key, row, BPF_NOEXIST);
	}
	if (nat_same(old, row))
		return 1;
	if (!has_handshake(orig->proto))
		return 0;
	if (old->to_real)
		nat_apply(old, want, key);
	if (real_is_want ? ct_known(key) : ct_live(key))
		return 0;
	tuple_reverse(want, key);
	return !bpf_map_update_elem(&nats, key, row, BPF_EXIST);
}

/*
 * nat_create writes both rows for orig -> want. real_is_want says which of the
 * two conntrack knows. If the tuple is taken, or `spread` says that many senders share
 * the source address, a source port is chosen; want is updated. Returns 0
 * when none of the tried ports was free.
 */
BORDER int nat_create(const struct tuple *orig, struct tuple *want, __u16 scope, __u16 real_is_want, int spread)
{
	__u32 range = (__u32)cfg.snat_max - cfg.snat_min + 1;
	struct tuple key; /* the one there is: the stack is small */
	struct nat row;

	if (!orig || !want)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < PORT_TRIES; i++) {
		if (i || spread)
			want->sport = bpf_htons((__u16)(cfg.snat_min + bpf_get_prandom_u32() % range));
		if (!nat_claim(orig, want, scope, real_is_want, &row, &key))
			continue;
		nat_row(&row, want, scope, real_is_want);
		key = *orig; /* see BORDER */
		return !bpf_map_update_elem(&nats, &key, &row, BPF_ANY);
	}
	return 0;
}

/* replace_port changes a field of the transport header together with its checksum. */
static __always_inline int replace_port(struct __sk_buff *skb, __u16 csum, __u64 flags, __u16 at, __be16 from, __be16 to)
{
	if (from == to)
		return 0;
	if (bpf_l4_csum_replace(skb, csum, from, to, flags | 2))
		return -1;
	return bpf_skb_store_bytes(skb, at, &to, 2, 0);
}

static __always_inline int replace_addr(struct __sk_buff *skb, __u16 csum, __u64 flags, __u16 at,
					const struct addr *from, const struct addr *to)
{
	__s64 diff;

	if (addr_equal(from, to))
		return 0;
	diff = bpf_csum_diff((__be32 *)from->word, ADDR_LEN, (__be32 *)to->word, ADDR_LEN, 0);
	if (csum && bpf_l4_csum_replace(skb, csum, 0, diff, flags))
		return -1;
#if FAMILY == 4
	if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), 0, diff, 0))
		return -1;
#endif
	return bpf_skb_store_bytes(skb, at, to->word, ADDR_LEN, 0);
}

static __always_inline int rewrite_echo(struct __sk_buff *skb, struct packet *p, const struct tuple *to)
{
	int request = p->icmp_type == ICMP_ECHO_REQUEST;

	return replace_port(skb, p->l4 + ICMP_CSUM, 0, p->l4 + ICMP_ID,
			    request ? p->t.sport : p->t.dport, request ? to->sport : to->dport);
}

/*
 * The checksum of SCTP knows no addresses and is not a sum. A packet that has none
 * yet gets it from the device that sends it, after this.
 */
static __always_inline int rewrite_sctp(struct __sk_buff *skb, struct packet *p, const struct tuple *to)
{
	__be16 was[2] = { p->t.sport, p->t.dport }, ports[2] = { to->sport, to->dport };
	__u32 csum, diff;

	__builtin_memcpy(&diff, was, 4);
	__builtin_memcpy(&csum, ports, 4);
	diff ^= csum;
	if (!diff)
		return 0;
	if (bpf_skb_load_bytes(skb, p->l4 + SCTP_CSUM, &csum, 4))
		return -1;
	if (csum) {
		csum ^= crc32c_advance(diff, p->l4_len);
		if (bpf_skb_store_bytes(skb, p->l4 + SCTP_CSUM, &csum, 4, BPF_F_RECOMPUTE_CSUM))
			return -1;
	}
	return bpf_skb_store_bytes(skb, p->l4, ports, 4, BPF_F_RECOMPUTE_CSUM);
}

/* diff_word adds up what replacing a word changes in a sum of words. */
static __always_inline __u64 diff_word(__u64 diff, __be32 from, __be32 to)
{
	return diff + (__u32)~from + to;
}

static __always_inline __u32 diff_fold(__u64 diff)
{
	diff = (diff & 0xffffffff) + (diff >> 32);
	return (diff & 0xffffffff) + (diff >> 32);
}

static __always_inline __u64 diff_addr(__u64 diff, const struct addr *from, const struct addr *to)
{
	for (int i = 0; i < ADDR_WORDS; i++)
		diff = diff_word(diff, from->word[i], to->word[i]);
	return diff;
}

static __always_inline __be32 both_ports(const struct tuple *t)
{
	return (__u32)t->dport << 16 | t->sport;
}

/*
 * rewrite_in_place is for the many, TCP and UDP without options before them. The helper for the
 * transport checksum knows what the device is to do of it, and makes the headers writable; all
 * else is plain stores.
 */
static __always_inline int rewrite_in_place(struct __sk_buff *skb, const struct packet *p, const struct tuple *to)
{
	const int udp = p->t.proto == IPPROTO_UDP;
	const __u32 csum = ETH_HLEN + L3_LEN + (udp ? UDP_CSUM : TCP_CSUM);
	const __u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 addrs = diff_fold(diff_addr(diff_addr(0, &p->t.saddr, &to->saddr), &p->t.daddr, &to->daddr));
	__be32 was = both_ports(&p->t), ports = both_ports(to);
	void *data, *end;

	if (bpf_l4_csum_replace(skb, csum, 0, addrs, flags | BPF_F_PSEUDO_HDR))
		return -1;
	if (was != ports && bpf_l4_csum_replace(skb, csum, 0, diff_fold(diff_word(0, was, ports)), flags))
		return -1;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + ETH_HLEN + L3_LEN + sizeof(ports) > end)
		return -1;
#if FAMILY == 4
	struct iphdr *ip = data + ETH_HLEN;
	__u64 sum = (__u64)addrs + (__u16)~ip->check;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
	ip->saddr = to->saddr.word[0];
	ip->daddr = to->daddr.word[0];
#else
	struct ipv6hdr *ip = data + ETH_HLEN;

	__builtin_memcpy(&ip->saddr, &to->saddr, ADDR_LEN);
	__builtin_memcpy(&ip->daddr, &to->daddr, ADDR_LEN);
#endif
	__builtin_memcpy(ip + 1, &ports, sizeof(ports));
	return 0;
}

static __always_inline int can_rewrite_in_place(const struct packet *p)
{
	return (p->t.proto == IPPROTO_TCP || p->t.proto == IPPROTO_UDP) && p->l4 == ETH_HLEN + L3_LEN &&
	       p->fragment != FRAGMENT_LATER;
}

static __always_inline int rewrite_ports(struct __sk_buff *skb, struct packet *p, const struct tuple *to)
{
	__u16 csum = p->l4 + (p->t.proto == IPPROTO_TCP ? TCP_CSUM : UDP_CSUM);
	__u64 flags = p->t.proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	if (p->t.proto == IPPROTO_SCTP)
		return rewrite_sctp(skb, p, to);
	if (replace_port(skb, csum, flags, p->l4, p->t.sport, to->sport))
		return -1;
	return replace_port(skb, csum, flags, p->l4 + 2, p->t.dport, to->dport);
}

/* rewrite gives the packet another tuple. Afterwards p->t is that one. */
BORDER int rewrite(struct __sk_buff *skb, struct packet *p, const struct tuple *to)
{
	__u64 flags = BPF_F_PSEUDO_HDR;
	__u16 csum;
	int echo, later;

	if (!p || !to)
		return -1;
	if (can_rewrite_in_place(p)) {
		if (rewrite_in_place(skb, p, to))
			return -1;
		p->t = *to;
		return 0;
	}
	echo = p->t.proto == IPPROTO_ICMP_FAMILY;
	later = p->fragment == FRAGMENT_LATER;
	csum = p->l4;

	if (later) {
		csum = 0; /* stands in the first fragment, which accounts for the whole datagram */
	} else if (p->t.proto == IPPROTO_TCP) {
		csum += TCP_CSUM;
	} else if (p->t.proto == IPPROTO_UDP) {
		csum += UDP_CSUM;
		flags |= BPF_F_MARK_MANGLED_0;
	} else if (p->t.proto == IPPROTO_SCTP) {
		csum = 0; /* no pseudo header */
	} else {
		csum = FAMILY == 4 ? 0 : csum + ICMP_CSUM; /* ICMPv4 has no pseudo header */
	}
	if (replace_addr(skb, csum, flags, ETH_HLEN + L3_SADDR, &p->t.saddr, &to->saddr) ||
	    replace_addr(skb, csum, flags, ETH_HLEN + L3_SADDR + ADDR_LEN, &p->t.daddr, &to->daddr) ||
	    (!later && (echo ? rewrite_echo(skb, p, to) : rewrite_ports(skb, p, to))))
		return -1;
	p->t = *to;
	return 0;
}

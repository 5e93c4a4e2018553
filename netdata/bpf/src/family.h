/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * family.h: what differs between IPv4 and IPv6, and nothing else.
 *
 * Every source is compiled once with -DFAMILY=4 and once with -DFAMILY=6. The
 * rest of the code speaks of addresses and offsets through the names below.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#if FAMILY == 4
#define ADDR_WORDS 1
#define ETH_P_FAMILY ETH_P_IP
#define L3_LEN sizeof(struct iphdr)
#define L3_SADDR offsetof(struct iphdr, saddr)
#define IPPROTO_ICMP_FAMILY IPPROTO_ICMP
#define ICMP_ECHO_REQUEST 8
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_PORT_UNREACHABLE 3
#define ICMP_PSEUDO_HEADER 0
#elif FAMILY == 6
#define ADDR_WORDS 4
#define ETH_P_FAMILY ETH_P_IPV6
#define L3_LEN sizeof(struct ipv6hdr)
#define L3_SADDR offsetof(struct ipv6hdr, saddr)
#define IPPROTO_ICMP_FAMILY IPPROTO_ICMPV6
#define ICMP_ECHO_REQUEST 128
#define ICMP_ECHO_REPLY 129
#define ICMP_UNREACHABLE 1
#define ICMP_PORT_UNREACHABLE 4
#define ICMP_PSEUDO_HEADER BPF_F_PSEUDO_HDR
#else
#error "compile with -DFAMILY=4 or -DFAMILY=6"
#endif

#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

#define ADDR_LEN (4 * ADDR_WORDS)

/*
 * A function that the verifier walks once and by itself, not with all that its callers
 * may know: without such borders the number of ways through a program multiplies. It
 * must not be static, and must check the pointers it is given. Linux 6.1 does not take what
 * they point to as the key of a map: keys are copied to the stack.
 */
#define BORDER __attribute__((noinline))
#define SIZE_ASSERT(type, v4, v6) \
	_Static_assert(sizeof(type) == (FAMILY == 4 ? (v4) : (v6)), #type " is shared with Go: its size is fixed")

/* An address in network byte order. */
struct addr {
	__be32 word[ADDR_WORDS];
};
SIZE_ASSERT(struct addr, 4, 16);

static __always_inline int addr_equal(const struct addr *a, const struct addr *b)
{
	for (int i = 0; i < ADDR_WORDS; i++)
		if (a->word[i] != b->word[i])
			return 0;
	return 1;
}

/* addr_less is a total order, no more: it compares words as they lie in memory. */
static __always_inline int addr_less(const struct addr *a, const struct addr *b)
{
	for (int i = 0; i < ADDR_WORDS; i++)
		if (a->word[i] != b->word[i])
			return a->word[i] < b->word[i];
	return 0;
}

static __always_inline int addr_in(const struct addr *a, const struct addr *net, const struct addr *mask)
{
	for (int i = 0; i < ADDR_WORDS; i++)
		if ((a->word[i] & mask->word[i]) != net->word[i])
			return 0;
	return 1;
}

static __always_inline int addr_zero(const struct addr *a)
{
	for (int i = 0; i < ADDR_WORDS; i++)
		if (a->word[i])
			return 0;
	return 1;
}

/* Addresses that mean "this machine" and have no business on a wire. */
static __always_inline int addr_loopback(const struct addr *a)
{
#if FAMILY == 4
	return (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
#else
	return !a->word[0] && !a->word[1] && !a->word[2] && a->word[3] == bpf_htonl(1);
#endif
}

/*
 * addr_link_scope: multicast that stays on its link, such as membership reports and neighbour
 * discovery.
 */
static __always_inline int addr_link_scope(const struct addr *a)
{
#if FAMILY == 4
	return (a->word[0] & bpf_htonl(0xffffff00)) == bpf_htonl(0xe0000000);
#else
	return (a->word[0] & bpf_htonl(0xff0f0000)) == bpf_htonl(0xff020000);
#endif
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * sctp.h: changing a field under a CRC. The kernel's helpers only know checksums that are
 * sums. A CRC is linear as well, though over bits: a difference d that stands n bits before the
 * end of a packet changes its CRC by d * x^n modulo the polynomial.
 */
#pragma once

#include "family.h"

#define CRC32C_POLYNOMIAL 0x82f63b78 /* Castagnoli; bit 31 is x^0 */
#define CRC32C_X8 0x00800000         /* x^8 */

static __always_inline __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < 32; i++) {
		product ^= b & -(a >> 31);
		a <<= 1;
		b = (b >> 1) ^ (CRC32C_POLYNOMIAL & -(b & 1));
	}
	return product;
}

/*
 * crc32c_advance returns what the difference, which is in the first four of the given number
 * of bytes, makes of their CRC.
 */
BORDER __u32 crc32c_advance(__u32 diff, __u32 bytes)
{
	__u32 power = CRC32C_X8;

#pragma clang loop unroll(disable)
	for (int bit = 0; bit < 16; bit++) {
		if (bytes >> bit & 1)
			diff = crc32c_multiply(diff, power);
		power = crc32c_multiply(power, power);
	}
	return diff;
}

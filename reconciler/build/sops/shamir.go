package sops

import "errors"

// combine recovers a secret from shares of Shamir's scheme over GF(2^8). Each
// share is one byte per byte of the secret, the value of that byte's polynomial,
// followed by the point x at which it was taken. The secret is the value at 0.
//
// Shares that do not belong together give a wrong secret; it is the
// authentication of what it encrypts that tells.
func combine(shares [][]byte) ([]byte, error) {
	size := len(shares[0]) - 1
	points := map[byte]bool{}
	for _, share := range shares {
		x := share[len(share)-1]
		if len(share)-1 != size || size < 1 || x == 0 || points[x] {
			return nil, errors.New("the shares of its data key do not belong together")
		}
		points[x] = true
	}
	secret := make([]byte, size)
	for _, share := range shares {
		// The Lagrange basis polynomial of this share's point, at 0.
		basis := byte(1)
		for x := range points {
			if x != share[size] {
				basis = multiply(basis, multiply(x, inverse(x^share[size])))
			}
		}
		for i := range secret {
			secret[i] ^= multiply(share[i], basis)
		}
	}
	return secret, nil
}

// multiply multiplies in GF(2^8) modulo x^8+x^4+x^3+x+1, in constant time.
func multiply(a, b byte) byte {
	var product byte
	for range 8 {
		product ^= -(b & 1) & a
		a = a<<1 ^ -(a>>7)&0x1b
		b >>= 1
	}
	return product
}

// inverse returns a^254, which is 1/a because the multiplicative group has 255
// elements.
func inverse(a byte) byte {
	result, power := byte(1), a
	for exponent := 254; exponent > 0; exponent >>= 1 {
		if exponent&1 == 1 {
			result = multiply(result, power)
		}
		power = multiply(power, power)
	}
	return result
}

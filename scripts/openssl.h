/* Has SQLCipher use OpenSSL, which knows the processor's AES instructions, instead of
 * the libtomcrypt that comes with the driver. The files are the same. See the target
 * build-openssl. */
#undef SQLCIPHER_CRYPTO_LIBTOMCRYPT
#define SQLCIPHER_CRYPTO_OPENSSL 1

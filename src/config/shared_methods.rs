//! The methods that client and server configurations share, written once.
//!
//! They come from macros and not from a trait, because they are inherent methods: a caller needs no import for them,
//! and the documentation of each type lists them.

/// The methods of `ClientTls` and `ServerTls`.
macro_rules! impl_tls {
    ($tls:ident, $builder:literal, $config:ty, $keep:expr, $(#[doc = $doc:literal])*) => {
        impl $tls {
            /// The configuration of rustls. After [`replace`](Self::replace), this method returns the new one.
            pub fn config(&self) -> Arc<$config> {
                Arc::clone(&self.0.now().config)
            }

            /// Uses another configuration for each handshake that begins from now on, in all clones of this handle: in
            /// listeners, servers and connectors too. Handshakes that have begun, and connections, keep the old
            /// configuration. Later changes of `other` have no effect on this handle.
            ///
            /// Returns the new [generation](Self::generation). If `other` was made from the same contents, or has the
            /// same configuration of rustls, nothing changes and the generation stays the same (rules: reload-1,
            /// reload-2). Two changes by `customize` are the same only if both builders are clones of one.
            ///
            /// [`Reloader`](crate::Reloader) does this whenever the files of a builder change.
            ///
            $(#[doc = $doc])*
            #[doc(alias = "reload")]
            #[doc(alias = "rotate")]
            pub fn replace(&self, other: Self) -> u64 {
                let new = Settings::clone(&other.0.now());
                self.0.replace(new, $keep)
            }

            /// The number of the configuration that is in use. The first one has the number 1, and each
            /// [replacement](Self::replace) with different contents adds 1.
            pub fn generation(&self) -> u64 {
                self.0.now().generation
            }

            #[doc = concat!("The same configuration with the express engine (see [`", $builder, "::express`]). Use this for a configuration")]
            /// that came from rustls. Key extraction (`enable_secret_extraction`) is turned on in a copy. The result is
            /// a handle of its own: a later [replacement](Self::replace) of this one has no effect on it.
            ///
            /// # Errors
            /// [`ConfigError`](crate::ConfigError): the crypto provider does not let keys be extracted. The caller has
            /// to fix this.
            #[cfg(feature = "express")]
            pub fn express(self) -> Result<Self, Error> {
                let mut settings = Settings::clone(&self.0.now());
                super::common::check_keys(settings.config.crypto_provider())?;
                let config = Arc::make_mut(&mut settings.config);
                config.enable_secret_extraction = true;
                // rustls passes the exporter's secret only to the key log, so the express engine takes it from there.
                config.key_log = Arc::new(crate::core::session::Catcher(Arc::clone(&config.key_log)));
                if let Some(choices) = &mut settings.choices {
                    Arc::make_mut(choices).express();
                }
                settings.engine = EngineKind::Express;
                settings.generation = 1;
                Ok(Self(settings.into()))
            }

            /// The configuration, with the engine that the caller chose.
            fn with_engine(self, common: &Common) -> Result<Self, Error> {
                #[cfg(feature = "express")]
                if common.express {
                    return self.express();
                }
                let _ = common;
                Ok(self)
            }

            /// Whether connections of this configuration use the express engine.
            pub fn is_express(&self) -> bool {
                self.0.now().engine != EngineKind::Rustls
            }

            /// Problems that do not stop the configuration from working. Log them.
            pub fn warnings(&self) -> Arc<[ConfigWarning]> {
                Arc::clone(&self.0.now().warnings)
            }
        }

        impl fmt::Debug for $tls {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let settings = self.0.now();
                let own = settings.own.as_deref().and_then(|chain| super::subject(chain.first()?));
                f.debug_struct(stringify!($tls))
                    .field("own", &own)
                    .field("generation", &settings.generation)
                    .field("warnings", &settings.warnings)
                    .finish_non_exhaustive()
            }
        }
    };
}

/// The methods of `ClientTlsBuilder` and `ServerTlsBuilder`.
macro_rules! impl_builder {
    ($builder:ident, $tls:ident) => {
        impl $builder {
            /// Our own certificate chain and private key from PEM files; both may be in one file. The chain starts with
            /// our own certificate, followed by its issuer; leave out the root.
            #[doc(alias = "load_cert_chain")]
            pub fn identity_pem_files(self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
                let (chain, key) = (Source::File(chain.into()), Source::File(key.into()));
                self.identity_source(IdentitySource::Pem { chain, key })
            }

            /// As [`identity_pem_files`](Self::identity_pem_files), from PEM text in memory.
            pub fn identity_pem(self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
                let (chain, key) = (Source::Bytes(chain.into()), Source::Bytes(key.into()));
                self.identity_source(IdentitySource::Pem { chain, key })
            }

            /// As [`identity_pem_files`](Self::identity_pem_files), as DER.
            pub fn identity(self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
                self.identity_source(IdentitySource::Der { chain, key })
            }

            /// The passphrase of an encrypted private key in a PEM file or text: `ENCRYPTED PRIVATE KEY`, which is
            /// PKCS#8 with PBES2 (RFC 8018), as `openssl pkcs8 -topk8` writes it by default. Supported are AES in CBC
            /// and GCM, with keys from PBKDF2 with SHA-2 or from scrypt. Other encryptions, and the old format with a
            /// `Proc-Type` line, are errors that say how to convert the file. The passphrase is not used for a key that
            /// is not encrypted.
            ///
            /// The passphrase is wiped from memory when the builder is dropped. Deriving the key takes time on purpose,
            /// typically a tenth of a second, in [`build`](Self::build).
            #[cfg(feature = "encrypted-keys")]
            #[doc(alias = "password")]
            pub fn key_passphrase(mut self, passphrase: impl Into<Vec<u8>>) -> Self {
                self.common.passphrase = super::passphrase::Passphrase::new(passphrase.into());
                self
            }

            /// The application protocols to negotiate, the preferred one first: `["h2", "http/1.1"]`. Default: no
            /// ALPN.
            #[doc(alias = "set_alpn_protocols")]
            #[doc(alias = "NextProtos")]
            pub fn alpn(mut self, protocols: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
                self.common.alpn = protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
                self
            }

            /// The oldest version to accept; default TLS 1.2 (rule: secure-9).
            #[doc(alias = "minimum_version")]
            pub fn min_version(mut self, version: TlsVersion) -> Self {
                self.common.min = Some(version);
                self
            }

            /// The newest version to accept; default TLS 1.3.
            #[doc(alias = "maximum_version")]
            pub fn max_version(mut self, version: TlsVersion) -> Self {
                self.common.max = Some(version);
                self
            }

            /// The crypto provider. Default: the provider of the enabled feature; `aws-lc-rs` is preferred to `ring`.
            pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
                self.common.provider = Some(provider);
                self
            }

            /// The groups for the key exchange, the preferred one first. Default: all groups of the crypto provider, in
            /// its order. A group that the provider does not have is an error when the configuration is built.
            #[doc(alias = "curves")]
            #[doc(alias = "CurvePreferences")]
            pub fn key_exchange_groups(mut self, groups: impl IntoIterator<Item = rustls::NamedGroup>) -> Self {
                self.common.groups = Some(groups.into_iter().collect());
                self
            }

            /// Writes the session keys to the file that the environment variable `SSLKEYLOGFILE` names, for Wireshark
            /// and similar tools. Anyone who can read that file can decrypt the connections. Without this call, the
            /// variable has no effect. Without the variable, this call has no effect.
            #[doc(alias = "keylog_filename")]
            #[doc(alias = "KeyLogWriter")]
            pub fn key_log_file_from_env(mut self) -> Self {
                self.common.key_log_from_env = true;
                self
            }

            /// Uses the express engine: rustls does the handshake, and this crate's own record layer opens and seals
            /// the records after it, with the same crypto provider. It uses less CPU per byte and less memory per idle
            /// connection. In return, fewer people have reviewed this record layer than rustls's, and the traffic keys
            /// leave rustls for this crate's memory. Leave it off unless you need the speed, and always leave it off if
            /// a cryptographic module has to be used exactly as it was validated.
            ///
            /// The provider must allow key extraction, as the providers of the features do; otherwise the configuration
            /// fails. For rustls's own cipher suites, the AEAD is called directly. For any other suite, it is called
            /// through rustls, which is slower.
            #[cfg(feature = "express")]
            pub fn express(mut self) -> Self {
                self.common.express = true;
                self
            }

            fn identity_source(mut self, source: IdentitySource) -> Self {
                self.common.identity = Some(source);
                self
            }
        }
    };
}

pub(super) use {impl_builder, impl_tls};

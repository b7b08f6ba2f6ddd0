"""What `aiaas.toml` and the environment say: models by name, options, how to serve, trusted keys, credentials.

Two files are read. The *project's* is `aiaas.toml` in the working folder, or the file that AIAAS_CONFIG names, which
is then read instead. The *user's* is `aiaas.toml` in the user's own folder (AIAAS_HOME). Where both say something,
the project's goes first::

    [models]
    digits = "torch:models/digits"                        # a path is relative to the file's folder
    llm = { address = "openai+https://host/v1#gpt-x", timeout = 60, retry = { attempts = 5 } }
    safe = ["https://host/v2/models/digits", "torch:models/digits"]        # a route

    [defaults]
    timeout = 10                                          # seconds; "none" for no limit
    retry = false                                         # a policy is a table, true (its defaults) or false (off)

    [profiles.staging.models]                             # with AIAAS_PROFILE=staging these go before [models]
    digits = "https://staging.example.com/v2/models/digits"
    [profiles.staging.defaults]
    timeout = 30

    [serve]                                               # for `aiaas serve`; names as in `aiaas_sdk.server.serve`
    targets = ["models", "llm"]
    port = 8080

    [trust]                                               # these two: never in the working folder's file
    keys = ["ed25519:..."]
    [credentials."https://host"]
    api_key_env = "HOST_KEY"                              # or api_key_file, or api_key

A name is looked up in AIAAS_MODEL_<NAME>, the profile, [models]; the first hit is taken whole, with its own options
and none of an entry that it hides. For an option that the entry leaves open the environment (AIAAS_TIMEOUT, ...)
goes before the profile's defaults and those before [defaults]: what is said of one model is more telling than what
is said of all. A working folder may come from strangers, so its file can't name keys to trust, nor credentials; and
a credential is given to the origin that it stands for and to no other.
"""

from aiaas_sdk.settings.reading import Resolved, Settings, read

__all__ = ["Resolved", "Settings", "read"]

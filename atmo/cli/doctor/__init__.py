"""What `atmo doctor` looks at: `places` (folders, disk, ports), `membership` (keys, tokens, certificates), `engines`
(llama.cpp, the encoder, models, memory), `nodes` (those that run). Each yields findings and raises nothing."""

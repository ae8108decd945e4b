"""Network definitions: ours and the published layouts that users may bring weights of."""

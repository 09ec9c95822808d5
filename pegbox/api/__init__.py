"""HTTP: routes that parse the wire, call one function and render the wire. No rule of the domain lives here."""

// Two peer connections in one page that may talk through relays alone: messages over a data channel, there and back.
//
// The lab puts the server and the credentials in front of this: `const SERVER = {urls, username, credential}`, and
// `const MESSAGES`. The value is what was counted.
(async () => {
    const configuration = { iceServers: [SERVER], iceTransportPolicy: "relay" };
    const [near, far] = [0, 1].map(() => new RTCPeerConnection(configuration));
    const errors = [];
    for (const [from, to] of [[near, far], [far, near]]) {
        from.onicecandidate = ({ candidate }) => candidate && to.addIceCandidate(candidate);
        from.onicecandidateerror = (event) => errors.push(`${event.errorCode} ${event.errorText} ${event.url}`);
    }
    const within = (limit, what, promise) =>
        Promise.race([
            promise,
            new Promise((_, reject) =>
                setTimeout(() => reject(new Error(`no ${what}; ${errors.join(", ")}`)), limit)
            ),
        ]);
    const opened = (channel) => new Promise((resolve) => (channel.onopen = resolve));

    const begin = performance.now();
    const channel = near.createDataChannel("lab");
    far.ondatachannel = ({ channel }) => (channel.onmessage = ({ data }) => channel.send(data));
    await near.setLocalDescription(await near.createOffer());
    await far.setRemoteDescription(near.localDescription);
    await far.setLocalDescription(await far.createAnswer());
    await near.setRemoteDescription(far.localDescription);
    await within(20000, "open channel", opened(channel));
    const open = performance.now() - begin;

    // Sizes from a few bytes to more than fit into one datagram.
    const messages = Array.from({ length: MESSAGES }, (_, index) => `${index}:`.padEnd(10 + 37 * index, "x"));
    const echoes = [];
    const all = new Promise((resolve) => {
        channel.onmessage = ({ data }) => {
            echoes.push(data);
            if (echoes.length === messages.length) resolve();
        };
    });
    const sent = performance.now();
    messages.forEach((message) => channel.send(message));
    await within(20000, "echo", all);
    const exchange = performance.now() - sent;

    const pairs = [];
    for (const peer of [near, far]) {
        const stats = [...(await peer.getStats()).values()];
        const transport = stats.find((entry) => entry.type === "transport");
        const pair = stats.find((entry) => entry.id === transport.selectedCandidatePairId);
        const of = (id) => stats.find((entry) => entry.id === id);
        pairs.push([of(pair.localCandidateId), of(pair.remoteCandidateId)]);
    }
    near.close();
    far.close();
    return {
        open,
        exchange,
        received: echoes.filter((echo, index) => echo === messages[index]).length,
        types: pairs.flat().map((candidate) => candidate.candidateType),
        transports: pairs.map(([local]) => local.relayProtocol),
        errors,
    };
})()

// A real OpenID Connect provider for the tests: `node provider.mjs ACCOUNTS`, with ADIT_NODE_MODULES saying where its packages are.
// It listens on a loopback port, prints its issuer, and reads the claims of its people from the file ACCOUNTS whenever it is asked.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const modules = createRequire(`${process.env.ADIT_NODE_MODULES}/`);
const { Provider } = await import(pathToFileURL(modules.resolve('oidc-provider')));

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const claims = (id) => JSON.parse(readFileSync(process.argv[2], 'utf8'))[id];

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'adit',
    client_secret: 'a secret with + and %',
    redirect_uris: ['https://localhost/sign-in/with/corp/callback'],
  }],
  claims: { openid: ['sub'], profile: ['preferred_username', 'name'], email: ['email', 'email_verified'], groups: ['groups'] },
  cookies: { keys: ['only a test'] },
  findAccount: async (_, id) => claims(id) && { accountId: id, claims: async () => ({ sub: id, ...claims(id) }) },
  // The company's own client: nobody is asked for consent.
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid profile email groups');
    await grant.save();
    return grant;
  },
  pkce: { required: () => true },
});

server.on('request', provider.callback());
console.log(issuer);
